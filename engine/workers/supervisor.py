"""Keeps one worker running: start, watch, and start again after whatever has ended it."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from engine.errors import Unavailable
from engine.types import ModelState
from engine.workers.backoff import FIRST_SECONDS, Backoff
from engine.workers.exits import in_words
from engine.workers.handshake import LoadFailed, Ping, Pong, Ready
from engine.workers.process import WorkerProcess
from engine.workers.watch import (
    LOADING_CPU_SECONDS,
    STILL_LOADING_SECONDS,
    Debt,
    Watch,
    allowed,
)

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
PING_EVERY_LOOKS = 3


class WorkerUnavailable(Unavailable):
    """The worker has ended or cannot load its model; it is started again by itself."""


class Supervisor:
    """State machine: loading -> ready -> (crash, hang) failed -> (after some time) loading ...

    troubled: it has failed and has not been ready since; detail says how. failures: how often so far.
    name: what people call it, such as "bge-small-en-v1.5 on cpu"; it appears in health and in errors.
    on_message: called on the event loop with everything the worker says beside what every worker says.
    on_change: called after every change of `state`. When it is no longer "ready", whatever the worker was
    working on is lost.
    """

    def __init__(
        self,
        name: str,
        module: str,
        options: object,
        *,
        log_file: Path,
        on_message: Callable[[object], None],
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self.state: ModelState = "unloaded"
        self.detail: str | None = None
        self.troubled = False
        self.failures = 0
        self.ready_message: Ready | None = None
        self._module = module
        self._options = options
        self._log_file = log_file
        self._on_message = on_message
        self._on_change = on_change
        self._settled = asyncio.Event()
        self._backoff = Backoff()
        self._process: WorkerProcess | None = None
        self._watch = Watch()
        self._looks = 0
        self._slowest_step_seconds = 0.0
        self._why: str | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._restart: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Never raises: a worker that cannot be started has failed, and is tried again like any other."""
        self._forget_timers()
        self.state = "loading"
        self._settled.clear()
        self._watch, self._why = Watch(), None
        self._watch.owes("load", Debt(LOADING_CPU_SECONDS, STILL_LOADING_SECONDS))
        try:
            self._process = WorkerProcess(
                self._module,
                self._options,
                log_file=self._log_file,
                on_message=self._received,
                on_exit=self._exited,
            )
        except (OSError, RuntimeError) as error:
            self._failed(f"its process cannot be started: {error}")
        else:
            self._look_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def rss_bytes(self) -> int:
        return self._process.rss_bytes() if self._process else 0

    async def ready(self) -> Ready:
        """Wait until the worker has loaded its model. Raises WorkerUnavailable when it has failed to."""
        await self._settled.wait()
        if self.state != "ready" or self.ready_message is None:
            raise self.unavailable()
        return self.ready_message

    def unavailable(self) -> WorkerUnavailable:
        """Why it cannot be used now, and when it will be tried again."""
        seconds = max(self._restart.when() - asyncio.get_running_loop().time(), 0.0) if self._restart else 1.0
        return WorkerUnavailable(
            f"{self.name} is not available: {self.detail}. It is tried again by itself, and at once by "
            "`npu-gateway load`.",
            retry_after_seconds=seconds + 1.0,
        )

    def send(self, message: object) -> None:
        """Raises WorkerUnavailable when no process is there; the end of one shows in on_change."""
        if self._process is None:
            raise self.unavailable()
        self._process.send(message)

    def owes(self, key: object, expected_seconds: float) -> None:
        """The worker has something to do; it is taken for hanging when it needs far longer than expected."""
        self._watch.owes(key, Debt(allowed(expected_seconds)))

    def paid(self, key: object) -> None:
        self._watch.paid(key)

    def kill(self) -> None:
        """For a worker that hangs: its end is then handled like any crash."""
        if self._process:
            self._process.kill()

    def retire(self) -> None:
        """The worker ends by itself and is not needed again."""
        self.state = "unloaded"
        self._forget_timers()

    async def stop(self) -> None:
        self.state, self.detail = "unloaded", None
        self._settled.set()
        self._forget_timers()
        if self._process:
            process, self._process = self._process, None
            await process.stop()

    def _received(self, message: object) -> None:
        if self._process is None:  # stopped; a worker that has just loaded its model must not count as ready
            return
        match message:
            case Ready():
                self.ready_message = message
                self._watch.paid("load")
                self.troubled, self.detail = False, None
                self._settle("ready")
            case LoadFailed(reason):
                self._why = reason  # it ends by itself now
            case Pong(seconds):
                self._slowest_step_seconds = seconds
                self._watch.paid("ping")
            case _:
                self._backoff.worked()
                self._on_message(message)

    def _look(self) -> None:
        if self._process is None:
            return
        self._looks += 1
        if self.state == "ready" and self._looks % PING_EVERY_LOOKS == 0 and "ping" not in self._watch.debts:
            self._watch.owes("ping", Debt(allowed(self._slowest_step_seconds)))
            self._process.send(Ping())
        if hang := self._watch.look(time.monotonic(), self._process.cpu_seconds()):
            logger.error("%s hangs and is ended: %s", self.name, hang)
            self._why = f"its process hung and was ended: {hang}"
            self._process.kill()
        self._look_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _exited(self, status: int, wrong: str | None) -> None:
        if self.state == "unloaded":
            return
        self._process = None
        self._failed(wrong or self._why or f"its process ended with {in_words(status)}")

    def _failed(self, reason: str) -> None:
        seconds = self._backoff.failed()
        logger.error(
            "%s: %s; its log is %s; it is started again in %.1f s", self.name, reason, self._log_file, seconds
        )
        self._forget_timers()
        self._restart = asyncio.get_running_loop().call_later(seconds, self._start_again)
        self.troubled, self.detail = True, f"{reason}; see `npu-gateway logs`"
        self.failures += 1
        if seconds <= FIRST_SECONDS:  # once is an accident: whoever waits is served by the next process
            self.state = "loading"
            self._settled.clear()
            self._on_change()
        else:
            self._settle("failed")

    def _start_again(self) -> None:
        self._restart = None
        self.start()
        self._on_change()

    def _forget_timers(self) -> None:
        for timer in (self._restart, self._look_timer):
            if timer:
                timer.cancel()
        self._restart = self._look_timer = None

    def _settle(self, state: ModelState) -> None:
        self.state = state
        self._settled.set()
        self._on_change()
