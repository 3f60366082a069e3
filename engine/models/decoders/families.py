"""The families of decoders that can be imported, one row and one file each, and what they have in common.

Key names: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py.
"""

from collections.abc import Mapping
from types import MappingProxyType

from engine.errors import ModelSupplyError
from engine.models.decoders.decoder import Decoder, inverse_frequencies
from engine.models.decoders.llama import LlamaWeights
from engine.models.decoders.phi3 import Phi3Weights
from engine.models.decoders.quantise import BLOCK
from engine.models.decoders.weights import GgufWeights
from engine.models.gguf.reader import GgufFile

FAMILIES: Mapping[str, type[GgufWeights]] = MappingProxyType({"llama": LlamaWeights, "phi3": Phi3Weights})
"""By `general.architecture`."""


def read_decoder(file: GgufFile) -> tuple[Decoder, GgufWeights]:
    """Raises ModelSupplyError for an architecture, or a variation of one, that cannot be imported."""
    architecture = file.text("general.architecture")
    if architecture not in FAMILIES:
        raise ModelSupplyError(
            f"{file.path} holds a model of architecture {architecture!r}, which cannot be imported. "
            f"Supported: {', '.join(FAMILIES)}."
        )
    decoder = _decoder(file, architecture)
    weights = FAMILIES[architecture](file, decoder)
    _refuse_unknown_tensors(file, weights.tensor_names())
    return decoder, weights


def _decoder(file: GgufFile, family: str) -> Decoder:
    heads = file.integer(f"{family}.attention.head_count")
    hidden = file.integer(f"{family}.embedding_length")
    head_size = file.integer(f"{family}.attention.key_length", default=hidden // heads)
    _refuse_variations(file, family, head_size)
    return Decoder(
        family=family,
        layers=file.integer(f"{family}.block_count"),
        hidden=hidden,
        intermediate=file.integer(f"{family}.feed_forward_length"),
        heads=heads,
        kv_heads=file.integer(f"{family}.attention.head_count_kv", default=heads),
        head_size=head_size,
        vocabulary=file.shape("token_embd.weight")[0],
        context_tokens=file.integer(f"{family}.context_length"),
        norm_epsilon=file.number(f"{family}.attention.layer_norm_rms_epsilon"),
        inverse_frequencies=inverse_frequencies(
            file.number(f"{family}.rope.freq_base", default=10_000.0), head_size
        ),
        attention_window=file.integer(f"{family}.attention.sliding_window", default=0) or None,
    )


def _refuse_variations(file: GgufFile, family: str, head_size: int) -> None:
    rotated = file.integer(f"{family}.rope.dimension_count", default=head_size)
    scaling = file.text(f"{family}.rope.scaling.type", default="none")
    refused = {
        "position embedding on a part of each head": rotated != head_size,
        f"position embedding scaled by {scaling!r}": scaling != "none",
        "mixture of experts": file.integer(f"{family}.expert_count", default=0) > 0,
        f"matrices whose rows are no multiple of {BLOCK}": bool(
            file.integer(f"{family}.embedding_length") % BLOCK
            or file.integer(f"{family}.feed_forward_length") % BLOCK
        ),
    }
    if found := [name for name, present in refused.items() if present]:
        raise ModelSupplyError(f"{file.path} cannot be imported: it uses {' and '.join(found)}.")


def _refuse_unknown_tensors(file: GgufFile, known: set[str]) -> None:
    """A tensor left out (a bias, say) would give a model that runs and talks nonsense."""
    if unknown := sorted(file.tensor_names - known):
        raise ModelSupplyError(
            f"{file.path} cannot be imported: it has {len(unknown)} tensors that a plain "
            f"{file.text('general.architecture')} model has not, such as {unknown[0]!r}."
        )
