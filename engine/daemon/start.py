"""Find the gateway, or start one that outlives this process."""

import asyncio
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from filelock import Timeout

from engine.daemon.endpoint import Endpoint
from engine.daemon.find import find, retire
from engine.daemon.lock import home_lock
from engine.daemon.skew import is_outdated, make_way
from engine.errors import GatewayUnreachable
from engine.files import make_private
from engine.settings import Home

# -P: the gateway works in the home folder and must not import what happens to lie there.
SERVE = (sys.executable, "-P", "-m", "engine.cli", "serve")
GATEWAY_COMMAND = (*SERVE, "--auto")
RESPAWN_SECONDS = 3.0
CRASHES_ALLOWED = 2
BOOT_LOG_LIMIT_BYTES = 1_000_000
LEAST_DISK_BYTES = 100_000
"""With fewer the gateway could not even publish itself and say in its log what is wrong."""


async def ensure(
    home: Home, deadline_seconds: float = 20.0, *, command: Sequence[str] = GATEWAY_COMMAND
) -> Endpoint:
    """The running gateway of `home`, started if there was none.

    Raises GatewayUnreachable naming the boot log when none answers in time or starting it fails twice, and
    naming the home when that cannot be used.
    """
    try:
        async with asyncio.timeout(deadline_seconds):
            with _Starter(home, command) as starter:
                return await _found_or_started(home, starter)
    except TimeoutError as error:
        raise GatewayUnreachable(
            f"No gateway answered within {deadline_seconds:.0f} s. "
            f"Run `npu-gateway serve` to see why, or read {boot_log(home)}."
        ) from error
    except OSError as error:
        raise GatewayUnreachable(
            f"No gateway can run in {home.root}: {error.filename or 'it'} cannot be used ({error.strerror}). "
            "Repair that, or set NPU_GATEWAY_HOME to another folder."
        ) from error


async def _found_or_started(home: Home, starter: "_Starter") -> Endpoint:
    pause = 0.03
    while True:
        endpoint = await find(home)
        if endpoint is None:
            await make_way(home)
        elif is_outdated(endpoint):
            await retire(endpoint)
        else:
            return endpoint
        starter.start_if_needed()
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.5)


class _Starter:
    """Starts gateways, one at a time and one client at a time.

    Many clients that come at once would be right to start one each, as only one gets the lock; but the others
    cost a second of processor each while the machine is busy starting programs.
    """

    def __init__(self, home: Home, command: Sequence[str]) -> None:
        self._home = home
        self._command = command
        self._turn = home_lock(home, "start")
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = -math.inf
        self._crashes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._turn.release()

    def start_if_needed(self) -> None:
        """Raises GatewayUnreachable when what was started has failed too often."""
        if not self._has_turn() or self._is_starting():
            return
        if self._crashes >= CRASHES_ALLOWED:
            log = boot_log(self._home)
            raise GatewayUnreachable(f"The gateway cannot start: {_last_words(log)}. More in {log}.")
        if time.monotonic() >= self._not_before:
            self._process = _spawn(self._home, self._command)

    def _is_starting(self) -> bool:
        if self._process is None:
            return False
        status = self._process.poll()
        if status is None:
            return True
        self._process = None
        if status == 0:  # another gateway has the lock; it will answer, or die and leave the place to us
            self._not_before = time.monotonic() + RESPAWN_SECONDS
        else:
            self._crashes += 1
        return False

    def _has_turn(self) -> bool:
        try:
            return self._turn.is_locked or bool(self._turn.acquire())
        except Timeout:
            return False


def boot_log(home: Home) -> Path:
    """Where the standard output and errors of gateways started from here go, failed imports among them."""
    return home.log / "gateway-boot.log"


def _spawn(home: Home, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the command so that it survives this process, its terminal and, where allowed, its Windows job.

    Its output goes to a file: with our pipes in its hands, the program that started us would wait for it.
    """
    make_private(home.log)
    log = boot_log(home)
    mode = "wb" if log.exists() and log.stat().st_size > BOOT_LOG_LIMIT_BYTES else "ab"
    with log.open(mode) as output:
        process = _detached(command, home, output.fileno())
    # Waiting for it keeps a dead one from staying in the process table as long as this process lives.
    threading.Thread(target=process.wait, name="gateway-reaper", daemon=True).start()
    return process


def _detached(command: Sequence[str], home: Home, output: int) -> subprocess.Popen[bytes]:
    def start(creation_flags: int = 0) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=home.root,
            env=os.environ | {"NPU_GATEWAY_HOME": str(home.root)},
            start_new_session=True,  # no effect on Windows
            creationflags=creation_flags,
        )

    if sys.platform != "win32":
        return start()
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    try:
        return start(flags | subprocess.CREATE_BREAKAWAY_FROM_JOB)
    except (
        OSError
    ):  # the host's job object forbids it: this gateway ends with the host, the next client starts another
        return start(flags)


def _last_words(log: Path) -> str:
    if shutil.disk_usage(log.parent).free < LEAST_DISK_BYTES:  # what the log ends with is older, or cut off
        return f"the disk of {log.parent} is full"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"
