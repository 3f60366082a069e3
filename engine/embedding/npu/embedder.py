"""The embedding model on the NPU: a handful of fixed shapes, prepared one by one while the CPU serves."""

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from engine.embedding.npu.buckets import Bucket, NpuFault, TokenIds, plan
from engine.embedding.npu.contexts import Context, ContextCache
from engine.embedding.npu.device import Npu
from engine.embedding.npu.parity import check
from engine.embedding.npu.session import BucketSession, QnnSession

logger = logging.getLogger(__name__)

MEMORY_BUDGET_BYTES = 576 * 2**20
"""Holds the five single-text buckets of BGE small and three larger ones, 65 MiB each."""

RUNS_BETWEEN_CHECKS = 1000
"""A device that begins to compute wrongly gives no other sign. The gate costs two runs, so 0.2 %."""

MAX_LENGTH_ERROR = 0.02
"""Float16 leaves vectors of length 1 within 0.0001."""

OpenSession = Callable[[Path, Bucket, Npu], BucketSession]


@dataclass(frozen=True)
class _Loaded:
    session: BucketSession
    size_bytes: int


class NpuEmbedder:
    """Runs batches on the buckets that `prepare` made available. All methods may be called from any thread.

    runs_between_checks: how often a bucket passes through the parity gate after it was loaded.
    memory_budget_bytes: when the loaded contexts take more, the one used longest ago is unloaded; it is
    loaded again when it is needed.
    """

    def __init__(
        self,
        npu: Npu,
        contexts: ContextCache,
        *,
        memory_budget_bytes: int = MEMORY_BUDGET_BYTES,
        runs_between_checks: int = RUNS_BETWEEN_CHECKS,
        open_session: OpenSession = QnnSession,
    ) -> None:
        self._npu = npu
        self._contexts = contexts
        self._memory_budget_bytes = memory_budget_bytes
        self._runs_between_checks = runs_between_checks
        self._runs: Counter[Bucket] = Counter()
        self._open_session = open_session
        self._available: dict[Bucket, Context] = {}
        self._disabled: dict[Bucket, str] = {}
        self._loaded: OrderedDict[Bucket, _Loaded] = OrderedDict()
        self._device = threading.Lock()
        """Held while the NPU works and while what is above changes: QNN runs one graph at a time anyway."""
        self._preparing = threading.Lock()

    def available_buckets(self) -> tuple[Bucket, ...]:
        """Those that texts can be sent to now."""
        return tuple(sorted(self._available.copy()))

    def disabled(self) -> Mapping[Bucket, str]:
        """Buckets that could not be prepared, and why."""
        return MappingProxyType(self._disabled.copy())

    def prepare(self, bucket: Bucket) -> None:
        """Make a bucket available, compiling it if no usable context is stored, or disable it.

        Does not raise for a fault of the NPU: the reason is in `disabled()`. Runs go on meanwhile.
        """
        with self._preparing:
            try:
                if not self._load_stored(bucket):
                    self._load(self._contexts.compile(bucket))
            except NpuFault as fault:
                logger.warning("The NPU's %s bucket is disabled: %s", bucket, fault)
                self._disable(bucket, str(fault))

    def withdraw(self, bucket: Bucket) -> None:
        """Send no more texts to a bucket, and give its memory back."""
        with self._device:
            self._loaded.pop(bucket, None)
            self._available.pop(bucket, None)

    def rebuild(self, bucket: Bucket) -> None:
        """Open an available bucket's session anew, after a fault. Raises NpuFault."""
        with self._device:
            self._open(self._require(bucket))

    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Vectors [texts, hidden] of length 1, in the order given. Raises NpuFault."""
        vectors: dict[int, NDArray[np.float32]] = {}
        with self._device:
            for bucket, rows in plan([len(ids) for ids in token_ids], self.available_buckets()):
                session = self._checked_session(bucket)
                output = session.run([token_ids[row] for row in rows])
                vectors.update(zip(rows, _normalised(output, bucket), strict=True))
        return np.stack([vectors[row] for row in range(len(token_ids))])

    def close(self) -> None:
        """Give the NPU's memory back."""
        with self._device:
            self._loaded.clear()

    def _load_stored(self, bucket: Bucket) -> bool:
        context = self._contexts.find(bucket)
        if context is None:
            return False
        try:
            self._load(context)
        except NpuFault as fault:
            logger.warning("The stored %s context is made anew: %s", bucket, fault)
            return False
        return True

    def _load(self, context: Context) -> None:
        with self._device:
            self._open(context)
            self._available[context.bucket] = context
            self._disabled.pop(context.bucket, None)

    def _disable(self, bucket: Bucket, reason: str) -> None:
        with self._device:
            self._loaded.pop(bucket, None)
            self._available.pop(bucket, None)
            self._disabled[bucket] = reason

    def _require(self, bucket: Bucket) -> Context:
        try:
            return self._available[bucket]
        except KeyError:
            raise NpuFault(f"The NPU's {bucket} bucket is not available.", bucket=bucket) from None

    def _checked_session(self, bucket: Bucket) -> BucketSession:
        """Passes through the parity gate again now and then."""
        session = self._session(bucket)
        self._runs[bucket] += 1
        if self._runs[bucket] >= self._runs_between_checks:
            check(session, bucket, self._available[bucket].probes(), thorough=False)
            self._runs[bucket] = 0
        return session

    def _session(self, bucket: Bucket) -> BucketSession:
        if bucket in self._loaded:
            self._loaded.move_to_end(bucket)
        else:
            self._open(self._available[bucket])
        return self._loaded[bucket].session

    def _open(self, context: Context) -> None:
        """Load a context and pass it through the parity gate."""
        self._loaded.pop(context.bucket, None)
        self._make_room(context.size_bytes)
        session = self._open_session(context.model, context.bucket, self._npu)
        check(session, context.bucket, context.probes(), thorough=False)
        self._loaded[context.bucket] = _Loaded(session, context.size_bytes)

    def _make_room(self, size_bytes: int) -> None:
        free = self._memory_budget_bytes - sum(loaded.size_bytes for loaded in self._loaded.values())
        while self._loaded and free < size_bytes:
            _, unloaded = self._loaded.popitem(last=False)
            free += unloaded.size_bytes


def _normalised(vectors: NDArray[np.float32], bucket: Bucket) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.abs(lengths - 1) <= MAX_LENGTH_ERROR):  # also true of NaN
        raise NpuFault(f"The NPU's {bucket} graph returned vectors that are not of length 1.", bucket=bucket)
    return np.asarray(vectors / lengths, np.float32)
