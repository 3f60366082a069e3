"""What the machine offers."""

import os

import psutil


def physical_cores() -> int:
    """Cores this process may use, hyper-threads not counted: native runtimes gain nothing from those."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(psutil.cpu_count(logical=False) or 1, allowed or 1)
