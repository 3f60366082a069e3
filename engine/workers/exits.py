"""What the exit status of a process means, in words."""

import signal
from collections.abc import Mapping
from types import MappingProxyType

_NTSTATUS: Mapping[int, str] = MappingProxyType(
    {
        0xC0000005: "access violation",
        0xC0000017: "out of memory",
        0xC000001D: "illegal instruction",
        0xC0000094: "division by zero",
        0xC00000FD: "stack overflow",
        0xC0000135: "a DLL was not found",
        0xC000013A: "Ctrl-C",
        0xC0000374: "heap corruption",
        0xC0000409: "stack buffer overrun",
    }
)
"""The exit codes of crashes on Windows: https://learn.microsoft.com/openspecs/windows_protocols/ms-erref."""


def in_words(status: int) -> str:
    """Such as "status -9 (SIGKILL)" or "status 0xC0000005 (access violation)"."""
    if status < 0:
        try:
            return f"status {status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"status {status}"
    if status >= 1 << 31:
        name = _NTSTATUS.get(status)
        return f"status {status:#010X}".replace("0X", "0x") + (f" ({name})" if name else "")
    return f"status {status}"
