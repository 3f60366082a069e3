"""Keeps one worker running: start, restart after a crash, give up when it keeps crashing."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import EngineError
from engine.types import ModelState
from engine.workers.handshake import LoadFailed, Ready
from engine.workers.process import WorkerProcess

logger = logging.getLogger(__name__)

CRASH_WINDOW_SECONDS = 60.0
RESTART_DELAY_SECONDS = 0.5


class WorkerFailed(EngineError):
    """The worker cannot be used: it failed to load or crashed twice within a minute."""


class Supervisor:
    """State machine: loading -> ready -> (crash) loading ...; two crashes within a minute -> failed.

    name: what people call it, such as "bge-small-en-v1.5 on cpu"; it appears in health and in errors.
    on_message: called on the event loop with everything the worker says but Ready and LoadFailed.
    on_change: called after every change of `state`. When it is no longer "ready", whatever the worker was
    working on is lost.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        log_file: Path,
        on_message: Callable[[object], None],
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self.state: ModelState = "unloaded"
        self.detail: str | None = None
        self.ready_message: Ready | None = None
        self._module = module
        self._arguments = tuple(arguments)
        self._log_file = log_file
        self._on_message = on_message
        self._on_change = on_change
        self._settled = asyncio.Event()
        self._crashes: list[float] = []
        self._process: WorkerProcess | None = None
        self._restart: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self.state, self.detail = "loading", None
        self._settled.clear()
        self._process = WorkerProcess(
            self._module,
            self._arguments,
            log_file=self._log_file,
            on_message=self._received,
            on_exit=self._exited,
        )

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def rss_bytes(self) -> int:
        return self._process.rss_bytes() if self._process else 0

    async def ready(self) -> Ready:
        """Wait until the worker has loaded its model. Raises WorkerFailed when it never will."""
        await self._settled.wait()
        if self.state != "ready" or self.ready_message is None:
            raise WorkerFailed(f"{self.name} failed: {self.detail}")
        return self.ready_message

    def send(self, message: object) -> None:
        """Raises WorkerFailed when no process is there; one that dies later is reported through on_lost."""
        if self._process is None:
            raise WorkerFailed(f"{self.name} is not running.")
        self._process.send(message)

    def kill(self) -> None:
        """For a worker that hangs: its end is then handled like any crash."""
        if self._process:
            self._process.kill()

    def retire(self) -> None:
        """The worker ends by itself and is not needed again."""
        self.state = "unloaded"

    async def stop(self) -> None:
        self.state, self.detail = "unloaded", None
        self._settled.set()
        if self._restart:
            self._restart.cancel()
        if self._process:
            process, self._process = self._process, None
            await process.stop()

    def _received(self, message: object) -> None:
        if self._process is None:  # stopped; a worker that has just loaded its model must not count as ready
            return
        match message:
            case Ready():
                self.ready_message = message
                self._settle("ready", None)
            case LoadFailed(reason):
                logger.error("%s: %s", self.name, reason)
                self._settle("failed", reason)
            case _:
                self._on_message(message)

    def _exited(self, status: int) -> None:
        if self.state in ("unloaded", "failed"):
            return
        reason = f"the worker process ended with status {status}; see `npu-gateway logs`"
        logger.error("%s: its process ended with status %d; its log is %s", self.name, status, self._log_file)
        self._process = None
        self._crashes = [*self._recent_crashes(), time.monotonic()]
        if len(self._crashes) >= 2:
            self._settle("failed", f"{reason} (twice within a minute)")
        else:
            self.state, self.detail = "loading", f"restarting: {reason}"
            self._settled.clear()
            self._restart = asyncio.get_running_loop().call_later(RESTART_DELAY_SECONDS, self.start)
            self._on_change()

    def _recent_crashes(self) -> list[float]:
        horizon = time.monotonic() - CRASH_WINDOW_SECONDS
        return [crash for crash in self._crashes if crash > horizon]

    def _settle(self, state: ModelState, detail: str | None) -> None:
        self.state, self.detail = state, detail
        self._settled.set()
        self._on_change()
