"""A decoder-only transformer as the graph writer needs to know it, whatever file it came from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.models.gguf.reader import FloatArray

Weights = Callable[[str], FloatArray]
"""Gives one float32 tensor of the decoder by its name (see Decoder.shape_of)."""


@dataclass(frozen=True)
class Decoder:
    """A network of RMS-normalised layers with grouped-query attention, rotary positions and a SiLU-gated MLP.

    inverse_frequencies: float32 [head_size / 2], radians per position; element j of a query or key is rotated
    together with element j + head_size / 2.
    attention_window: how many tokens a query sees, itself included; None: all.
    """

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context_tokens: int
    norm_epsilon: float
    inverse_frequencies: FloatArray
    attention_window: int | None = None

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a weight, [outputs, inputs] for a matrix. In layer i it is called "layers.{i}.<name>"."""
        shapes = {
            "embedding": (self.vocabulary, self.hidden),
            "attention_norm": (self.hidden,),
            "qkv": ((self.heads + 2 * self.kv_heads) * self.head_size, self.hidden),
            "attention_output": (self.hidden, self.heads * self.head_size),
            "mlp_norm": (self.hidden,),
            "gate": (self.intermediate, self.hidden),
            "up": (self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
            "final_norm": (self.hidden,),
            "head": (self.vocabulary, self.hidden),
        }
        return shapes[name.rpartition(".")[2]]


def inverse_frequencies(base: float, head_size: int) -> FloatArray:
    """Rotary position embedding (https://arxiv.org/abs/2104.09864): base ** (-2j / head_size)."""
    exponents = np.arange(0, head_size, 2, dtype=np.float64) / head_size
    return (base**-exponents).astype(np.float32)
