"""Whether texts run faster several at a time: the NPU reads the weights once per run, however many texts.

Only a measurement on the device itself can tell. On the emulator it would mean nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.embedding.npu.buckets import Bucket, TokenIds

LARGER_BUCKETS = (Bucket(4, 32), Bucket(4, 64), Bucket(4, 128))
"""Where the weights take most of a run's time: 42 MB to read for 1.4 GFLOP of 32 tokens (float16)."""

MIN_GAIN = 1.1
"""Less is not worth 65 MiB."""

REPEATS = 5
TOKEN_ID = 1012
"""The time does not depend on the tokens; this is BERT's full stop."""


class Runs(Protocol):
    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]: ...


def gain(npu: Runs, bucket: Bucket, clock: Callable[[], float] = time.perf_counter) -> float:
    """How many times faster a full bucket runs than its texts one by one, at best. Raises NpuFault."""
    texts = [np.full(bucket.sequence, TOKEN_ID, np.int32)] * bucket.batch

    def seconds(batches: Sequence[Sequence[TokenIds]]) -> float:
        started = clock()
        for batch in batches:
            npu.run(batch)
        return clock() - started

    seconds([texts])  # the first run of a session is slower
    together = min(seconds([texts]) for _ in range(REPEATS))
    one_by_one = min(seconds([[text] for text in texts]) for _ in range(REPEATS))
    return one_by_one / together
