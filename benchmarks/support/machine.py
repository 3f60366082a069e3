"""What a committed result says about the machine it was measured on."""

import os
import platform
from pathlib import Path

import psutil


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    load = f", load average at the end {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{_cpu()}, {psutil.cpu_count(logical=False)} cores, {memory:.0f} GiB, {platform.system()}{load}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    values = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in values.items()}
    interesting = {"avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "bf16"}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return f"{fields.get('model name', platform.machine())} ({', '.join(sorted(flags & interesting))})"
