"""A child process that holds a model, and the two threads that carry its messages.

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import psutil

from engine.workers.channel import Channel

_STOP_GRACE_SECONDS = 5.0


class WorkerProcess:
    """Runs `python -m MODULE ARGUMENTS`; calls back on the event loop that started it.

    The worker's part of the contract: it ends when its standard input does, so it never outlives the
    gateway, however that dies.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log_file: Path,
        on_message: Callable[[object], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_exit = on_exit
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
                **_out_of_reach_of_ctrl_c(),
            )
        self._stdin = cast(BinaryIO, self._process.stdin)
        self._stdout = cast(BinaryIO, self._process.stdout)
        self._channel = Channel(self._stdout, self._stdin)
        self._outbox: queue.SimpleQueue[object | None] = queue.SimpleQueue()
        self._gone = asyncio.Event()
        threading.Thread(target=self._write, name=f"to {module}", daemon=True).start()
        threading.Thread(target=self._read, name=f"from {module}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: object) -> None:
        """Queue a message; what cannot be delivered any more shows as an exit, not as an error here."""
        assert message is not None
        self._outbox.put(message)

    def rss_bytes(self) -> int:
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:  # it has just ended
            return 0

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

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # the reading thread reports the exit
            while (message := self._outbox.get()) is not None:
                self._channel.send(message)
        with contextlib.suppress(OSError):
            self._stdin.close()

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._call(self._on_message, self._channel.receive())
        self._stdout.close()
        status = self._process.wait()
        self._outbox.put(None)
        self._call(self._ended, status)

    def _ended(self, status: int) -> None:
        self._gone.set()
        self._on_exit(status)

    def _call(self, function: Callable[..., None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the gateway itself is ending
            self._loop.call_soon_threadsafe(function, value)


def _out_of_reach_of_ctrl_c() -> dict[str, Any]:
    """Ctrl-C in the gateway's terminal must reach the gateway alone, which then ends its workers."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"process_group": 0}
