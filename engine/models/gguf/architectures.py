"""The architectures that can be imported: where a GGUF file of each keeps the parts of a Decoder.

Tensor and key names: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.errors import ModelSupplyError
from engine.models.gguf.decoder import Decoder, FloatArray, inverse_frequencies
from engine.models.gguf.quantise import BLOCK
from engine.models.gguf.reader import GgufFile

ARCHITECTURES = ("llama", "phi3")


def read_decoder(file: GgufFile) -> tuple[Decoder, GgufWeights]:
    """Raises ModelSupplyError for an architecture, or a variation of one, that cannot be imported."""
    architecture = file.text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelSupplyError(
            f"{file.path} holds a model of architecture {architecture!r}, which cannot be imported. "
            f"Supported: {', '.join(ARCHITECTURES)}."
        )
    decoder = _decoder(file, architecture)
    weights = Phi3Weights(file, decoder) if architecture == "phi3" else LlamaWeights(file, decoder)
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


class GgufWeights:
    """The Weights of a Decoder. This class knows the tensors that both architectures name alike."""

    whole: ClassVar[dict[str, list[str]]] = {
        "embedding": ["token_embd"],
        "final_norm": ["output_norm"],
        "head": ["output"],
    }
    layered: ClassVar[dict[str, list[str]]] = {
        "attention_norm": ["attn_norm"],
        "attention_output": ["attn_output"],
        "mlp_norm": ["ffn_norm"],
        "down": ["ffn_down"],
    }

    def __init__(self, file: GgufFile, decoder: Decoder) -> None:
        self.file = file
        self.decoder = decoder

    def __call__(self, name: str) -> FloatArray:
        part = name.rpartition(".")[2]
        tensors = [self.file.tensor(source) for source in self.sources(name)]
        try:
            tensor = self.combine(part, *tensors)
        except ValueError as error:  # numpy's, about shapes that do not fit together
            raise self.file.malformed(f"{name}: {error}") from error
        if tensor.shape != self.decoder.shape_of(name):
            raise self.file.malformed(
                f"{name} is {tensor.shape}, but the metadata says {self.decoder.shape_of(name)}"
            )
        return tensor

    def stored_as(self, name: str) -> set[str]:
        return {self.file.quantisation(source) for source in self.sources(name)}

    def sources(self, name: str) -> list[str]:
        """The names of the tensors that make up a weight."""
        layer, _, part = name.removeprefix("layers.").rpartition(".")
        if part == "head" and not self.file.has_tensor("output.weight"):
            part = "embedding"  # tied
        if not layer:
            return [f"{tensor}.weight" for tensor in self.whole[part]]
        return [f"blk.{layer}.{tensor}.weight" for tensor in self.layered[part]]

    def tensor_names(self) -> set[str]:
        layers = range(self.decoder.layers)
        names = [*self.whole, *(f"layers.{layer}.{part}" for layer in layers for part in self.layered)]
        return {source for name in names for source in self.sources(name)}

    def combine(self, part: str, *tensors: FloatArray) -> FloatArray:
        (tensor,) = tensors
        return tensor


class LlamaWeights(GgufWeights):
    layered: ClassVar[dict[str, list[str]]] = GgufWeights.layered | {
        "qkv": ["attn_q", "attn_k", "attn_v"],
        "gate": ["ffn_gate"],
        "up": ["ffn_up"],
    }

    def combine(self, part: str, *tensors: FloatArray) -> FloatArray:
        if part != "qkv":
            return super().combine(part, *tensors)
        queries, keys, values = tensors
        return np.concatenate([self._half_rotated(queries), self._half_rotated(keys), values])

    def _half_rotated(self, rows: FloatArray) -> FloatArray:
        """llama.cpp keeps the two elements of each rotated pair side by side; undo that
        (`permute` in https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py)."""
        pairs = rows.reshape(-1, self.decoder.head_size // 2, 2, rows.shape[-1])
        return pairs.swapaxes(1, 2).reshape(rows.shape)


class Phi3Weights(GgufWeights):
    """Phi-3 fuses queries, keys and values; and gate (first half) and up (second half)."""

    layered: ClassVar[dict[str, list[str]]] = GgufWeights.layered | {
        "qkv": ["attn_qkv"],
        "gate": ["ffn_up"],
        "up": ["ffn_up"],
    }

    def combine(self, part: str, *tensors: FloatArray) -> FloatArray:
        tensor = super().combine(part, *tensors)
        half = self.decoder.intermediate
        match part:
            case "gate":
                return tensor[:half]
            case "up":
                return tensor[half:]
            case _:
                return tensor
