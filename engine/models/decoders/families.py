"""The families of decoders that can be imported, one row and one file each, and what they have in common.

Key names: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

from engine.errors import ModelSupplyError
from engine.models.decoders.decoder import Decoder, inverse_frequencies
from engine.models.decoders.llama import LlamaWeights
from engine.models.decoders.phi3 import Phi3Weights
from engine.models.decoders.quantise import BLOCK
from engine.models.decoders.weights import GgufWeights
from engine.models.gguf.reader import GgufFile

_MOST_HEADS = 1 << 12
_MOST_HEAD_SIZE = 1 << 10
_MOST_WIDTH = 1 << 20
_MOST_CONTEXT_TOKENS = 1 << 20
"""The positions of so many tokens are written out: half a gigabyte for heads of 128 elements."""

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
    def size(key: str, most: int, default: int | None = None, least: int = 1) -> int:
        found = file.integer(f"{family}.{key}", default)
        if not least <= found <= most:
            raise file.malformed(f"the key '{family}.{key}' is {found}; it can be {least} to {most}")
        return found

    heads = size("attention.head_count", _MOST_HEADS)
    hidden = size("embedding_length", _MOST_WIDTH)
    head_size = size("attention.key_length", _MOST_HEAD_SIZE, default=hidden // heads)
    kv_heads = size("attention.head_count_kv", heads, default=heads)
    if head_size % 2 or heads % kv_heads:
        raise file.malformed(
            f"it has {heads} heads of {head_size} elements, and {kv_heads} for keys and values"
        )
    _refuse_variations(file, family, head_size)
    return Decoder(
        family=family,
        layers=size("block_count", len(file.tensor_names)),
        hidden=hidden,
        intermediate=size("feed_forward_length", _MOST_WIDTH),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=file.shape("token_embd.weight")[0],
        context_tokens=size("context_length", _MOST_CONTEXT_TOKENS),
        norm_epsilon=_positive(file, f"{family}.attention.layer_norm_rms_epsilon"),
        inverse_frequencies=inverse_frequencies(
            _positive(file, f"{family}.rope.freq_base", default=10_000.0), head_size
        ),
        attention_window=size("attention.sliding_window", _MOST_CONTEXT_TOKENS, default=0, least=0) or None,
    )


def _positive(file: GgufFile, key: str, default: float | None = None) -> float:
    number = file.number(key, default)
    if not 0 < number < math.inf:
        raise file.malformed(f"the key {key!r} is {number}")
    return number


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
