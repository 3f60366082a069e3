"""Which NPU this machine has. Imports onnxruntime: for worker processes only."""

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import onnxruntime as ort

from engine.embedding.npu import EMULATION_VARIABLE, NOT_INSTALLED
from engine.types import NpuStatus

EP_NAME = "QNNExecutionProvider"


@dataclass(frozen=True)
class Npu:
    """A device that sessions can be opened on.

    handle: the onnxruntime.OrtEpDevice. options: provider options that address this device.
    identity: what a compiled context depends on; stable over restarts (the LUID in Windows' metadata is not).
    """

    name: str
    emulated: bool
    handle: Any
    identity: str
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class NpuSearch:
    """reason: why there is no NPU, as a sentence; None if there is one."""

    npu: Npu | None
    reason: str | None

    @property
    def status(self) -> NpuStatus:
        if self.npu is None:
            return NpuStatus(available=False, emulated=False, name=None, reason=self.reason)
        return NpuStatus(available=True, emulated=self.npu.emulated, name=self.npu.name, reason=None)


def find_npu() -> NpuSearch:
    """The NPU of this machine; where there is none, its emulator if the environment asks for it."""
    if find_spec("onnxruntime_qnn") is None:
        return NpuSearch(None, NOT_INSTALLED)
    try:
        import onnxruntime_qnn as qnn

        if EP_NAME not in ort.get_available_providers():  # registering twice is an error
            ort.register_execution_provider_library(EP_NAME, qnn.get_library_path())
        devices = ort.get_ep_devices()
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base; this one is reported
        return NpuSearch(None, f"The QNN execution provider cannot be loaded: {error}.")
    return choose(
        [device for device in devices if device.ep_name == EP_NAME],
        htp_backend=qnn.get_qnn_htp_path(),
        emulate=os.environ.get(EMULATION_VARIABLE) == "1",
    )


def choose(devices: Iterable[Any], *, htp_backend: str, emulate: bool) -> NpuSearch:
    """devices: those of the QNN provider, which may also offer the GPU and the CPU."""
    devices = list(devices)
    for device in devices:
        if device.device.type == ort.OrtHardwareDeviceType.NPU:
            return NpuSearch(_hardware(device), None)
    if emulate and devices and sys.platform == "linux" and platform.machine() == "x86_64":
        return NpuSearch(_emulator(devices[0], htp_backend), None)
    return NpuSearch(None, _why_none(emulate))


def _hardware(handle: Any) -> Npu:
    device = handle.device
    name = device.metadata.get("Description") or f"{device.vendor or handle.ep_vendor} NPU"
    return Npu(name, False, handle, identity=f"{device.vendor_id:#x}:{device.device_id:#x} {name}")


def _emulator(handle: Any, htp_backend: str) -> Npu:
    """The HTP library for x86-64 computes on the CPU what this Snapdragon X Elite (SC8380XP) would."""
    chip = {"soc_model": "60", "htp_arch": "73"}
    return Npu(
        "HTP emulator (Snapdragon X Elite)",
        True,
        handle,
        identity=f"emulator {chip}",
        options=MappingProxyType({"backend_path": htp_backend} | chip),
    )


def _why_none(emulate: bool) -> str:
    reason = "No NPU device was found by the QNN execution provider"
    if sys.platform == "win32" and platform.machine() == "AMD64":
        return f"{reason}: this Python is built for x86-64; a Snapdragon NPU needs the ARM64 build of Python."
    if emulate:
        return f"{reason}, and {_platform()} has no emulator of it (x86-64 Linux has)."
    return f"{reason}."


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"
