"""The NPU as the gateway sees it: it may be absent, incomplete, or out of order for a while.

The end of the ladder that begins in its worker (run again, open the session anew): a batch that still fails,
a worker that crashes or a run that hangs puts the NPU out of order for some minutes. Its texts go to the CPU;
then it is tried again. No onnxruntime here.
"""

import asyncio
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from engine.embedding.batch_messages import NpuBuckets, NpuOptions, NpuReady
from engine.embedding.devices.device import DeviceFailed, EmbeddingDevice
from engine.embedding.npu import NOT_INSTALLED
from engine.errors import EngineError
from engine.types import Device, NpuStatus

logger = logging.getLogger(__name__)

WORKER_MODULE = "engine.embedding.npu.npu_worker"

OUT_OF_ORDER_SECONDS = 120.0
HANG_SECONDS = 10.0
"""A run on hardware takes 2 to 8 ms per text; the emulator 1 s for the shortest, 115 s for the longest."""

EMULATED_HANG_SECONDS_PER_TEXT = 300.0

SEARCHING = NpuStatus(available=False, emulated=False, name=None, reason="the search for an NPU is not over")


class NpuDevice(EmbeddingDevice):
    """forced: take texts even before its costs are known."""

    device: Device = "npu"

    def __init__(
        self,
        model_folder: Path,
        contexts: Path,
        *,
        forced: bool,
        model_id: str,
        log_file: Path,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(
            WORKER_MODULE,
            NpuOptions(model_folder, contexts),
            lanes=1,
            model_id=model_id,
            log_file=log_file,
            on_change=on_change,
        )
        self.status = SEARCHING
        self.identity: str | None = None
        self.available: tuple[int, ...] = ()
        self.preparing = True
        self._disabled: Mapping[str, str] = MappingProxyType({})
        self.forced = forced
        self._fault: str | None = None
        self._recovery: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look for the NPU, in a process of its own: a broken driver must not take the CPU's worker along."""
        if importlib.util.find_spec("onnxruntime_qnn") is None:
            self._absent(NOT_INSTALLED)
        else:
            self.worker.start()

    async def stop(self) -> None:
        if self._recovery:
            self._recovery.cancel()
        await self.worker.stop()

    @property
    def trouble(self) -> str | None:
        """Why an NPU that is there does not take (all) texts, for health; None when all is well."""
        if self._fault:
            return f"out of order: {self._fault}"
        if self._disabled:
            return "; ".join(f"bucket {name} is disabled: {why}" for name, why in self._disabled.items())
        return None

    def longest(self) -> int:
        usable = super().longest() and not self._fault and (self.forced or self.costs)
        return max(self.available, default=0) if usable else 0

    def hopeless(self) -> bool:
        """Never the last hope: the CPU is there beside it."""
        return True

    async def run(
        self, token_ids: Sequence[NDArray[np.int32]], expected_seconds: float = 0.0
    ) -> NDArray[np.float32]:
        patience = HANG_SECONDS + 10 * expected_seconds
        if self.status.emulated:
            patience += EMULATED_HANG_SECONDS_PER_TEXT * len(token_ids)
        try:
            return await asyncio.wait_for(super().run(token_ids, expected_seconds), patience)
        except TimeoutError:
            self.worker.kill()
            self._out_of_order(f"a run hung for {patience:.0f} s")
            raise DeviceFailed(f"{self.worker.name} hung.") from None
        except EngineError as error:
            self._out_of_order(str(error))
            raise

    def _owe(self, batch_id: int, tokens: int, expected_seconds: float) -> None:
        """Nothing: `run` has its own patience with a device whose work uses no processor time."""

    def _received(self, message: object) -> None:
        match message:
            case NpuBuckets():
                self.available, self._disabled = message.available, message.disabled
                self.preparing = message.preparing
                self._on_change()
            case _:
                super()._received(message)

    def _changed(self) -> None:
        ready = self.worker.ready_message
        if self.worker.state == "ready" and isinstance(ready, NpuReady):
            self.status, self.identity = ready.status, ready.identity
            if not ready.status.available:
                self.worker.retire()
                self.preparing = False
        elif self.worker.state != "unloaded":
            self.available, self.preparing = (), True
            if self.worker.state == "failed":
                self._out_of_order(self.worker.detail or "its worker failed")
        super()._changed()

    def _absent(self, reason: str) -> None:
        self.status = NpuStatus(available=False, emulated=False, name=None, reason=reason)
        self.preparing = False

    def _out_of_order(self, fault: str) -> None:
        logger.warning("the NPU is not used for %.0f s: %s", OUT_OF_ORDER_SECONDS, fault)
        self._fault = fault
        if self._recovery:
            self._recovery.cancel()
        self._recovery = asyncio.get_running_loop().call_later(OUT_OF_ORDER_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._fault, self._recovery = None, None
        if self.worker.state == "failed":
            self.worker.start()
        self._on_change()
