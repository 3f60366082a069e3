"""A device that can turn batches of token ids into vectors, behind a supervised worker process."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.embedding.batch_messages import BatchDone, BatchFailed, RunBatch
from engine.embedding.devices.costs import LENGTHS, CostTable
from engine.errors import EngineError, WorkerCrashed
from engine.types import Device
from engine.workers.supervisor import Supervisor

UNMEASURED_SECONDS_PER_TOKEN = 0.02
"""Of a device that has not run anything yet: a hundred times what a slow laptop's CPU needs."""


class DeviceFailed(EngineError):
    """The device could not run a batch; another one, or a second try, may."""


class EmbeddingDevice:
    """The CPU, and what every device has in common.

    lanes: how many batches the worker runs side by side.
    costs: None until they are measured, which matters only where there is another device to choose.
    on_change: called when it can take more texts, or fewer, than before.
    """

    device: Device = "cpu"

    def __init__(
        self,
        module: str,
        options: object,
        *,
        lanes: int,
        model_id: str,
        log_file: Path,
        on_change: Callable[[], None],
    ) -> None:
        self.lanes = lanes
        self.costs: CostTable | None = None
        self._on_change = on_change
        self._expected_end = 0.0
        self._slowest_seconds_per_token = UNMEASURED_SECONDS_PER_TOKEN
        self._running: dict[int, asyncio.Future[NDArray[np.float32]]] = {}
        self._ids = itertools.count()
        self.worker = Supervisor(
            f"{model_id} on {self.device}",
            module,
            options,
            log_file=log_file,
            on_message=self._received,
            on_change=self._changed,
        )

    def longest(self) -> int:
        """Tokens of the longest text it can take now; 0 while it can take none."""
        return LENGTHS[-1] if self.worker.state == "ready" else 0

    def hopeless(self) -> bool:
        """It will not take texts again by itself."""
        return self.worker.state == "failed"

    def unavailable(self) -> EngineError:
        """Why, for those who wait for it."""
        return self.worker.unavailable()

    def busy_seconds(self) -> float:
        """Expected time until it is free. One that is overdue is taken to need as long again."""
        return abs(self._expected_end - time.perf_counter()) if self._running else 0.0

    async def run(
        self, token_ids: Sequence[NDArray[np.int32]], expected_seconds: float = 0.0
    ) -> NDArray[np.float32]:
        """Vectors float32 [texts, dimensions]. Raises DeviceFailed, WorkerUnavailable or WorkerCrashed."""
        batch_id = next(self._ids)
        done: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._running[batch_id] = done
        self._expected_end = time.perf_counter() + expected_seconds
        tokens, began = sum(map(len, token_ids)), time.perf_counter()
        self._owe(batch_id, tokens, expected_seconds)
        try:
            self.worker.send(RunBatch(batch_id, tuple(token_ids)))
            vectors = await done
            self._learn_pace(tokens, time.perf_counter() - began)
            return vectors
        finally:
            del self._running[batch_id]
            self.worker.paid(batch_id)

    def _learn_pace(self, tokens: int, seconds: float) -> None:
        """The slowest so far counts; the first batch replaces the guess."""
        pace = seconds / max(tokens, 1)
        known = self._slowest_seconds_per_token
        self._slowest_seconds_per_token = pace if known == UNMEASURED_SECONDS_PER_TOKEN else max(pace, known)

    def _owe(self, batch_id: int, tokens: int, expected_seconds: float) -> None:
        """What the worker needs for this batch, by what it has needed for others."""
        self.worker.owes(batch_id, max(expected_seconds, tokens * self._slowest_seconds_per_token))

    def _received(self, message: object) -> None:
        assert isinstance(message, BatchDone | BatchFailed), message
        done = self._running.get(message.batch_id)
        if done is None or done.done():  # its caller has left
            return
        if isinstance(message, BatchDone):
            done.set_result(message.vectors)
        else:
            done.set_exception(DeviceFailed(f"{self.worker.name} could not run a batch: {message.reason}"))

    def _changed(self) -> None:
        if self.worker.state != "ready":
            for done in self._running.values():
                if not done.done():
                    done.set_exception(WorkerCrashed(f"{self.worker.name}: the worker process ended."))
        self._on_change()
