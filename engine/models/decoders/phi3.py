"""Phi-3."""

from typing import ClassVar

from engine.models.decoders.weights import GgufWeights
from engine.models.gguf.reader import FloatArray


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
