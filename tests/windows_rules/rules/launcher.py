"""The `python.exe` of an environment is a launcher: it starts the interpreter as its child, and waits.

Who ends the launcher ends the interpreter too, at once: they are in one job.
"""

import os
import sys
from pathlib import Path

_LAUNCHER = "WINDOWS_RULES_LAUNCHER"
_PID = "WINDOWS_RULES_LAUNCHER_PID"


def write(file: Path) -> None:
    file.write_text(f'#!/bin/sh\n{_PID}=$$ "{sys.executable}" "$@"\nexit $?\n', encoding="utf-8")
    file.chmod(0o755)
    os.environ[_LAUNCHER] = str(file)


def enforce() -> None:
    sys.executable = os.environ[_LAUNCHER]
    if sys.platform == "linux" and os.environ.get(_PID) == str(os.getppid()):
        _end_with_the_launcher()


def _end_with_the_launcher() -> None:
    import ctypes

    die_with_parent, sigkill = 1, 9
    ctypes.CDLL(None).prctl(die_with_parent, sigkill)
    if os.environ[_PID] != str(os.getppid()):
        os._exit(1)
