"""What the gateway and an embedding worker say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.types import NpuStatus
from engine.workers.handshake import Ready

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class CpuOptions:
    """threads: cores to use in all. lanes: how many batches share them."""

    folder: Path
    threads: int
    lanes: int


@dataclass(frozen=True)
class NpuOptions:
    """contexts: the folder of the compiled graphs."""

    folder: Path
    contexts: Path


@dataclass(frozen=True)
class RunBatch:
    """token_ids: per text, special tokens included, padding not."""

    batch_id: int
    token_ids: tuple[NDArray[np.int32], ...]


@dataclass(frozen=True)
class BatchDone:
    """vectors: float32 [texts, dimensions], rows of length 1, in the order of the batch."""

    batch_id: int
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class BatchFailed:
    batch_id: int
    reason: str


@dataclass(frozen=True)
class NpuReady(Ready):
    """The search for an NPU is over; without one the worker ends. identity: of device and software."""

    status: NpuStatus
    identity: str


@dataclass(frozen=True)
class NpuBuckets:
    """Sent after each bucket that was prepared.

    available: tokens per text of the graphs that can run. disabled: the others so far, and why.
    preparing: more will come.
    """

    available: tuple[int, ...]
    disabled: Mapping[str, str]
    preparing: bool
