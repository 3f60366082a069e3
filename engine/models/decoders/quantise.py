"""Block quantisation in the layout of onnxruntime's MatMulNBits operator.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits

Two rules for small models, measured on SmolLM2-135M (Q4_1) as the mean Kullback-Leibler divergence of its
next-token distributions from a float32 forward pass of the same file (onnxruntime 1.32, AVX-512):

1. Keep the numbers of the file. Q4_0, Q4_1 and Q8_0 are blocks of 32, as MatMulNBits has them, so nothing
   need be lost: divergence below 0.00001. Rounding anew costs 0.002 in 8 symmetric bits, 0.5 in 4.
2. Multiply in float32 (accuracy level 1). Activations rounded to int8 (level 4) cost another 0.003, enough to
   turn "The capital of France is Paris." into nonsense. MatMulNBits has no fast float32 kernel for 8 bits
   (40 times slower), so weights of 8 bits become two planes of 4. All this costs about a third of the
   decoding speed of 8 bits with level 4; prompts are read a little faster.

Large models take 4 symmetric bits and int8 activations, as onnxruntime-genai's own builder does: they bear it
better, and their speed and memory matter more.
"""

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
SMALL_MODEL_PARAMETERS = 1_000_000_000

Form = Literal["4 bits", "4 bits and offsets", "8 bits"]
Floats = NDArray[np.float32]
Levels = NDArray[np.uint8]

_ROWS_AT_ONCE = 1024
"""Bounds the temporaries: 1,024 rows of 8,192 columns are 32 MiB of float32."""


@dataclass(frozen=True)
class Precision:
    """accuracy_level: of MatMulNBits; 1 multiplies in float32, 4 rounds activations to int8."""

    form: Form
    accuracy_level: Literal[1, 4]


def is_small(parameters: int) -> bool:
    return parameters < SMALL_MODEL_PARAMETERS


def precision_of(parameters: int, stored_as: Set[str]) -> Precision:
    """How to write a matrix whose parts a GGUF file with so many parameters stores in these quantisations."""
    if not is_small(parameters):
        return Precision("4 bits", accuracy_level=4)
    if stored_as == {"Q4_0"}:
        return Precision("4 bits", accuracy_level=1)
    if stored_as == {"Q4_1"}:
        return Precision("4 bits and offsets", accuracy_level=1)
    return Precision("8 bits", accuracy_level=1)


@dataclass(frozen=True)
class Plane:
    """An operand of MatMulNBits, worth (level - zero) * scale.

    packed: uint8 [outputs, blocks, 16], two levels in a byte, the first one low.
    scales: float32 [outputs, blocks].
    """

    packed: NDArray[np.uint8]
    scales: Floats
    zero: Literal[0, 8]


@dataclass(frozen=True)
class Quantised:
    """A matrix as the sum of its planes and, if given, of an offset per block: float32 [outputs, blocks]."""

    planes: tuple[Plane, ...]
    offsets: Floats | None = None


def quantise(weights: Floats, form: Form) -> Quantised:
    """weights: float32 [outputs, inputs], inputs a multiple of 32.

    Scales are chosen as ggml does (quantize_row_q4_0_ref, _q4_1_ref and _q8_0_ref in ggml-quants.c): weights
    that come from such a quantisation are met exactly.
    """
    outputs, inputs = weights.shape
    blocks = weights.reshape(outputs, inputs // BLOCK, BLOCK)
    match form:
        case "4 bits":
            highest, lowest = blocks.max(axis=-1), blocks.min(axis=-1)
            scales = np.where(highest > -lowest, highest, lowest) / np.float32(-8)
            return Quantised((Plane(_pack(_levels(blocks, scales, zero=8, bits=4)), scales, zero=8),))
        case "4 bits and offsets":
            lowest = blocks.min(axis=-1)
            scales = (blocks.max(axis=-1) - lowest) / np.float32(15)
            levels = _levels(blocks, scales, zero=0, bits=4, offsets=lowest)
            return Quantised((Plane(_pack(levels), scales, zero=8),), offsets=lowest + 8 * scales)
        case "8 bits":
            scales = np.maximum(blocks.max(axis=-1), -blocks.min(axis=-1)) / np.float32(127)
            levels = _levels(blocks, scales, zero=128, bits=8)
            high, low = levels >> np.uint8(4), levels & np.uint8(15)
            return Quantised((Plane(_pack(high), 16 * scales, zero=8), Plane(_pack(low), scales, zero=0)))


def _levels(blocks: Floats, scales: Floats, *, zero: int, bits: int, offsets: Floats | None = None) -> Levels:
    """round((block - offset) / scale) + zero, cut to the range of the bits."""
    inverses = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    levels = np.empty(blocks.shape, np.uint8)
    for start in range(0, len(blocks), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        values = blocks[rows] if offsets is None else blocks[rows] - offsets[rows, :, None]
        values = np.rint(values * inverses[rows, :, None])
        values += zero
        levels[rows] = np.clip(values, 0, 2**bits - 1, out=values)
    return levels


def _pack(levels: Levels) -> NDArray[np.uint8]:
    return levels[..., 0::2] | levels[..., 1::2] << np.uint8(4)
