"""Asks a child process which NPU there is: its drivers may crash or hang whoever loads them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from engine.types import NpuStatus

PROBE = (sys.executable, "-m", "engine.embedding.npu.probe")
TIMEOUT_SECONDS = 60.0
"""Half a second on an idle machine; a minute when it is swapping."""


@dataclass(frozen=True)
class NpuProbe:
    """identity: of the device and its software, as calibration tables name it; None without an NPU.

    failure: why the search did not end, as a sentence; None if it did.
    """

    status: NpuStatus
    identity: str | None = None
    failure: str | None = None


def probe_npu(command: Sequence[str] = PROBE, timeout_seconds: float = TIMEOUT_SECONDS) -> NpuProbe:
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_seconds,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired:
        return _failed(f"The search for an NPU did not end within {timeout_seconds:g} s.")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return _failed(f"The search for an NPU ended with status {done.returncode:#x}: {last}")
    found = json.loads(done.stdout.splitlines()[-1])  # drivers may have written lines before it
    return NpuProbe(NpuStatus(**found["status"]), found["identity"])


def _failed(why: str) -> NpuProbe:
    return NpuProbe(NpuStatus(available=False, emulated=False, name=None, reason=why), failure=why)
