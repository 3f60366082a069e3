"""One device that can turn batches of token ids into vectors, behind a supervised worker process."""

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.embedding.messages import BatchDone, BatchFailed, RunBatch
from engine.errors import EngineError, WorkerCrashed
from engine.types import Device
from engine.workers.supervisor import Supervisor


class DeviceFailed(EngineError):
    """The device could not run a batch; another one, or a second try, may."""


class EmbeddingDevice:
    """lanes: how many batches the worker runs side by side."""

    def __init__(
        self,
        device: Device,
        module: str,
        arguments: Sequence[str],
        *,
        lanes: int,
        model_id: str,
        log_file: Path,
    ) -> None:
        self.device: Device = device
        self.lanes = lanes
        self.worker = Supervisor(
            f"{model_id} on {device}",
            module,
            arguments,
            log_file=log_file,
            on_message=self._received,
            on_lost=self._lost,
        )
        self._running: dict[int, asyncio.Future[NDArray[np.float32]]] = {}
        self._ids = itertools.count()

    async def run(self, token_ids: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        """Vectors float32 [texts, dimensions]. Raises DeviceFailed or WorkerCrashed."""
        batch_id = next(self._ids)
        done: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._running[batch_id] = done
        try:
            self.worker.send(RunBatch(batch_id, tuple(token_ids)))
            return await done
        finally:
            del self._running[batch_id]

    def _received(self, message: object) -> None:
        assert isinstance(message, BatchDone | BatchFailed), message
        done = self._running.get(message.batch_id)
        if done is None or done.done():  # its caller has left
            return
        if isinstance(message, BatchDone):
            done.set_result(message.vectors)
        else:
            done.set_exception(DeviceFailed(f"{self.worker.name} could not run a batch: {message.reason}"))

    def _lost(self) -> None:
        for done in self._running.values():
            if not done.done():
                done.set_exception(WorkerCrashed(f"{self.worker.name}: the worker process ended."))
