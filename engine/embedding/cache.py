"""Vectors of texts that were embedded before. In memory only: what was embedded is nobody else's business."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.types import Device

ENTRY_OVERHEAD_BYTES = 400
"""Python's objects around the two arrays of an entry."""


@dataclass(frozen=True)
class CachedVector:
    """vector: float32 [dimensions], read-only. device: what computed it."""

    vector: NDArray[np.float32]
    device: Device


class VectorCache:
    """Bounded by bytes; the vector asked for longest ago goes first.

    One per loaded model, so that the token ids, which hold the query instruction too, are the whole key. A
    capacity of 0 switches it off.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity_bytes = capacity_bytes
        self._size_bytes = 0
        self._entries: OrderedDict[bytes, CachedVector] = OrderedDict()

    def get(self, token_ids: NDArray[np.int32]) -> CachedVector | None:
        key = token_ids.tobytes()
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry

    def put(self, token_ids: NDArray[np.int32], vector: NDArray[np.float32], device: Device) -> None:
        key = token_ids.tobytes()
        if key in self._entries:
            return
        own = vector.copy()  # a row would keep the whole batch alive
        own.flags.writeable = False
        self._entries[key] = CachedVector(own, device)
        self._size_bytes += _size_bytes(key, own)
        while self._size_bytes > self._capacity_bytes:
            oldest, entry = self._entries.popitem(last=False)
            self._size_bytes -= _size_bytes(oldest, entry.vector)


def _size_bytes(key: bytes, vector: NDArray[np.float32]) -> int:
    return len(key) + vector.nbytes + ENTRY_OVERHEAD_BYTES
