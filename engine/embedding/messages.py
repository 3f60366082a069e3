"""What the gateway and an embedding worker say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RunBatch:
    """token_ids: per text, special tokens included, padding not."""

    batch_id: int
    token_ids: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class BatchDone:
    """vectors: float32 [texts, dimensions], rows of length 1, in the order of the batch."""

    batch_id: int
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class BatchFailed:
    batch_id: int
    reason: str
