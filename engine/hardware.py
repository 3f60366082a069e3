"""What the machine offers."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

if sys.platform == "win32":
    import winreg

_WINDOWS_PROCESSOR = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"


def physical_cores() -> int:
    """Cores this process may use, hyper-threads not counted: native runtimes gain nothing from those."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(psutil.cpu_count(logical=False) or 1, allowed or 1)


def processor_name() -> str:
    """What the processor is called, as exactly as the system tells."""
    if sys.platform == "win32":
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _WINDOWS_PROCESSOR) as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (
        value.strip() for key, _, value in (line.partition(":") for line in lines) if "model name" in key
    )
    return next(names, platform.machine())  # ARM64 kernels name no model
