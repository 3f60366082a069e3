"""Python and the native runtimes: the right builds, the right versions, nothing in their way."""

import ctypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from types import MappingProxyType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from engine.doctor.finding import Finding
from engine.embedding.npu import NOT_INSTALLED

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)
"""The newest is the last one for which all native runtimes have a wheel on every platform."""

RUNTIMES = ("onnxruntime", "onnxruntime-genai", "onnxruntime-qnn")

_MODULES = MappingProxyType({"onnxruntime": "onnxruntime", "onnxruntime_genai": "onnxruntime-genai"})
"""Importable module, and the one distribution that may contain it."""

_ARCHITECTURES = MappingProxyType(
    {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "ARM64", "aarch64": "ARM64", "win32": "x86"}
)


def check_architecture(python: str, machine: str, system: str) -> Finding:
    """python, machine: processor architectures, as `architectures` returns them. system: as sys.platform."""
    name = "architecture"
    if python == machine:
        return Finding(name, "ok", f"Python and the machine are both {machine}.")
    get = "https://www.python.org/downloads/windows/ (Windows installer, ARM64)"
    if system != "win32":
        get = f"an {machine} build of it"
    return Finding(
        name,
        "fail",
        f"This Python is built for {python}, but the machine is {machine}: it is emulated, without the NPU.",
        f"Install {machine} Python ({get}) and install npu-gateway with that.",
    )


def architectures() -> tuple[str, str]:
    """Of this Python and of the machine.

    Not `platform.machine()`: on Windows it names the one or the other, depending on the version of Python.
    """
    if sys.platform == "win32":
        python = sysconfig.get_platform().removeprefix("win-")
        return _architecture(python), _windows_machine() or _architecture(python)
    python = os.uname().machine  # under Rosetta this is the emulated one
    return _architecture(python), "ARM64" if _under_rosetta() else _architecture(python)


def check_python(found: tuple[int, int]) -> Finding:
    name, shown = "python", f"Python {found[0]}.{found[1]}"
    supported = " to ".join(f"{major}.{minor}" for major, minor in (OLDEST_PYTHON, NEWEST_PYTHON))
    if found < OLDEST_PYTHON:
        return Finding(name, "fail", f"{shown} is too old.", f"Use Python {supported}.")
    if found > NEWEST_PYTHON:
        return Finding(
            name,
            "warn",
            f"{shown} is newer than the ones npu-gateway is tested with.",
            f"Use Python {supported} if anything goes wrong.",
        )
    return Finding(name, "ok", f"{shown}, {sys.executable}")


def check_runtime(name: str, requirement: Requirement, found: str | None) -> Finding:
    """requirement: npu-gateway's own on this package. found: the installed version."""
    if found is None and not _holds(requirement):
        if _holds(requirement, extra="npu"):
            return Finding(name, "ok", NOT_INSTALLED)
        return Finding(name, "ok", "There is none for this platform; it is not needed.")
    fix = f'Run: {_pip()} install --upgrade "{requirement.name}{requirement.specifier}"'
    if found is None:
        return Finding(name, "fail", "It is not installed.", fix)
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding(name, "fail", f"Version {found} does not fit: {requirement.specifier} is needed.", fix)
    return Finding(name, "ok", found)


def runtime_requirements() -> Mapping[str, Requirement]:
    """npu-gateway's own on the native runtimes; of several on the same one, that which holds here."""
    wanted = [found for found in map(Requirement, requires("npu-gateway") or ()) if found.name in RUNTIMES]
    return {found.name: found for found in sorted(wanted, key=_holds)}


def _holds(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_conflicts(providers: Mapping[str, Iterable[str]]) -> Finding:
    """providers: per importable module, the distributions that contain files of it.

    Builds for other hardware (onnxruntime-gpu, -directml, -windowsml) and onnxruntime-qnn 1.x contain a whole
    `onnxruntime` module: whichever was installed last has overwritten the other's files.
    """
    intruders = sorted(
        {canonicalize_name(found) for module, own in _MODULES.items() for found in providers.get(module, ())}
        - set(_MODULES.values())
    )
    if not intruders:
        return Finding("conflicts", "ok", "No other package contains the native runtimes' modules.")
    remove, restore = f"{_pip()} uninstall -y", f"{_pip()} install --force-reinstall --no-deps"
    names = " ".join(intruders)
    return Finding(
        "conflicts",
        "fail",
        f"Installed into the same folders as the native runtimes: {', '.join(intruders)}.",
        f"Run: {remove} {names}; then: {restore} {_damaged(intruders)}",
    )


def software() -> Sequence[Finding]:
    requirements = runtime_requirements()
    return [
        check_architecture(*architectures(), sys.platform),
        check_python(sys.version_info[:2]),
        *(check_runtime(name, requirements[name], installed_version(name)) for name in RUNTIMES),
        check_conflicts(packages_distributions()),
    ]


def _damaged(intruders: Sequence[str]) -> str:
    """What to install again. onnxruntime-qnn is an intruder only as version 1."""
    qnn = ['"onnxruntime-qnn>=2"'] if "onnxruntime-qnn" in intruders else []
    return " ".join([*_MODULES.values(), *qnn])


def _architecture(name: str) -> str:
    return _ARCHITECTURES.get(name.lower(), name)


def _windows_machine() -> str | None:
    """What the machine is, also to an emulated process; None where Windows is too old to tell."""
    if sys.platform != "win32":
        return None
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process, machine = ctypes.c_ushort(), ctypes.c_ushort()
    current = ctypes.c_void_p(kernel.GetCurrentProcess())
    if not kernel.IsWow64Process2(current, ctypes.byref(process), ctypes.byref(machine)):
        return None
    return {0x8664: "x86-64", 0xAA64: "ARM64"}.get(machine.value)  # IMAGE_FILE_MACHINE_*


def _under_rosetta() -> bool:
    if sys.platform != "darwin":
        return False
    asked = ["/usr/sbin/sysctl", "-in", "sysctl.proc_translated"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == "1"


def _pip() -> str:
    return subprocess.list2cmdline([sys.executable, "-m", "pip"])
