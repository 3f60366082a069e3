"""The shapes that graphs are compiled for, and how texts are laid out in them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError

TokenIds = Sequence[int] | NDArray[np.int32]

MASKED = -1e4
"""Added to the attention scores of padding. Float16, in which the NPU computes, cannot hold -3.4e38."""


class NpuFault(EngineError):
    """The NPU, its driver or a compiled context failed; the same texts may succeed on the CPU, or here later.

    bucket: whose graph was running or being loaded, if one was.
    """

    def __init__(self, message: str, *, bucket: "Bucket | None" = None) -> None:
        super().__init__(message)
        self.bucket = bucket


@dataclass(frozen=True, order=True)
class Bucket:
    """The shape of one compiled graph: so many texts, each padded to so many tokens."""

    batch: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.sequence}"


BUCKETS = tuple(Bucket(1, sequence) for sequence in (32, 64, 128, 256, 512))


def plan(lengths: Sequence[int], buckets: Sequence[Bucket]) -> list[tuple[Bucket, list[int]]]:
    """The runs that compute texts of these lengths, as (bucket, indexes of its texts).

    A text goes to the shortest bucket that holds it. Of the batch sizes there, the largest that can be
    filled is used. Raises NpuFault when a text fits nowhere.
    """
    by_sequence: defaultdict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        by_sequence[_shortest(length, buckets)].append(index)
    return [
        (Bucket(batch, sequence), rows)
        for sequence, indexes in sorted(by_sequence.items())
        for batch, rows in _fill(indexes, [b.batch for b in buckets if b.sequence == sequence])
    ]


def _shortest(length: int, buckets: Sequence[Bucket]) -> int:
    fitting = [bucket.sequence for bucket in buckets if bucket.sequence >= length]
    if not fitting:
        raise NpuFault(f"no available NPU bucket holds a text of {length} tokens.")
    return min(fitting)


def _fill(indexes: list[int], sizes: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    while indexes:
        batch = max((size for size in sizes if size <= len(indexes)), default=min(sizes))
        yield batch, indexes[:batch]
        indexes = indexes[batch:]


def pad(token_ids: Sequence[TokenIds], bucket: Bucket) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The graph's inputs: token ids [batch, sequence], and the attention's bias [batch, 1, 1, sequence].

    Rows without a text hold a single token of id 0; their vectors mean nothing.
    """
    input_ids = np.zeros((bucket.batch, bucket.sequence), np.int32)
    attention_bias = np.full((bucket.batch, 1, 1, bucket.sequence), MASKED, np.float32)
    attention_bias[..., 0] = 0
    for row, ids in enumerate(token_ids):
        input_ids[row, : len(ids)] = ids
        attention_bias[row, ..., : len(ids)] = 0
    return input_ids, attention_bias
