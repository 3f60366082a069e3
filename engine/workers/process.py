"""A child process that holds a model, and the three threads that carry its messages and its log.

Threads, not asyncio subprocesses: Sanic runs on the selector event loop on Windows, which has none. The
writing side needs a thread of its own because a worker that is busy in native code stops reading for
seconds, and a full pipe would then block the event loop.
"""

import asyncio
import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import psutil

from engine.logs import keep
from engine.workers.channel import Channel
from engine.workers.handshake import OtherVersion, assign, introduced

_STOP_GRACE_SECONDS = 5.0
_LAST_WORDS_SECONDS = 2.0


class WorkerProcess:
    """Runs `python -m MODULE` and assigns it its options; calls back on the event loop that started it.

    on_exit: called with its exit status, and with what was wrong with its messages if that ended it.
    The worker's part of the contract: it ends when its standard input does, so it never outlives the
    gateway, however that dies.
    """

    def __init__(
        self,
        module: str,
        options: object,
        *,
        log_file: Path,
        on_message: Callable[[object], None],
        on_exit: Callable[[int, str | None], None],
    ) -> None:
        """Raises OSError, or RuntimeError when the system has no thread left for it."""
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_exit = on_exit
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab"):
            pass  # one that cannot be written is known before there is a process
        self._process = subprocess.Popen(
            # -P: nothing is imported from the folder that the gateway happens to be started in.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
            **out_of_reach_of_ctrl_c(),
        )
        self.pid = self._process.pid
        self._stdin = cast(BinaryIO, self._process.stdin)
        self._stdout = cast(BinaryIO, self._process.stdout)
        self._stderr = cast(BinaryIO, self._process.stderr)
        self._channel = Channel(self._stdout, self._stdin)
        self._outbox: queue.SimpleQueue[object | None] = queue.SimpleQueue()
        self._gone = asyncio.Event()
        try:
            self._logging = threading.Thread(
                target=self._log, args=(log_file,), name=f"log of {module}", daemon=True
            )
            self._logging.start()
            threading.Thread(target=self._write, args=(options,), name=f"to {module}", daemon=True).start()
            threading.Thread(target=self._read, name=f"from {module}", daemon=True).start()
        except RuntimeError:
            self._process.kill()
            self._process.wait()
            self._outbox.put(None)
            for pipe in (self._stdin, self._stdout, self._stderr):
                with contextlib.suppress(OSError):
                    pipe.close()
            raise

    def send(self, message: object) -> None:
        """Queue a message; what cannot be delivered any more shows as an exit, not as an error here."""
        assert message is not None
        self._outbox.put(message)

    def rss_bytes(self) -> int:
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:  # it has just ended
            return 0

    def cpu_seconds(self) -> float:
        """Processor time used so far; 0 when it has ended."""
        try:
            times = psutil.Process(self.pid).cpu_times()
            return float(times.user + times.system)
        except psutil.Error:
            return 0.0

    def kill(self) -> None:
        self._process.kill()

    async def stop(self) -> None:
        """Close the worker's input, which ends it; kill it if it does not end in a few seconds."""
        self._outbox.put(None)
        try:
            await asyncio.wait_for(self._gone.wait(), _STOP_GRACE_SECONDS)
        except TimeoutError:
            self.kill()
            await self._gone.wait()

    def _write(self, options: object) -> None:
        with contextlib.suppress(OSError):  # the reading thread reports the exit
            assign(self._channel, options)
            while (message := self._outbox.get()) is not None:
                self._channel.send(message)
        with contextlib.suppress(OSError):
            self._stdin.close()

    def _log(self, log_file: Path) -> None:
        with self._stderr:
            keep(self._stderr, log_file)

    def _read(self) -> None:
        wrong: str | None = None
        try:
            self.pid = introduced(self._channel)
            while True:
                self._call(self._on_message, self._channel.receive())
        except (EOFError, OSError):
            pass  # it has ended
        except OtherVersion as error:
            wrong = str(error)
        except Exception as error:  # noqa: BLE001 - whatever unpickling raises; another version wrote it
            wrong = f"it sent what cannot be read ({error!r}); after an upgrade, run `npu-gateway restart`"
        if wrong:
            self.kill()
        self._stdout.close()
        status = self._process.wait()
        self._logging.join(_LAST_WORDS_SECONDS)  # longer only if a child of the worker still has its stderr
        self._outbox.put(None)
        self._call(self._ended, status, wrong)

    def _ended(self, status: int, wrong: str | None) -> None:
        self._gone.set()
        self._on_exit(status, wrong)

    def _call(self, function: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the gateway itself is ending
            self._loop.call_soon_threadsafe(function, *values)


def out_of_reach_of_ctrl_c() -> dict[str, Any]:
    """Ctrl-C in the gateway's terminal must reach the gateway alone, which then ends its workers."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"process_group": 0}
