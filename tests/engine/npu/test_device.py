"""Which NPU is found. The devices are made up: onnxruntime offers those of the machine only."""

import sys
from types import SimpleNamespace

import onnxruntime as ort
import pytest

from engine.embedding.npu import NOT_INSTALLED
from engine.embedding.npu.device import EP_NAME, choose, find_npu
from engine.types import NpuStatus

BACKEND = "/somewhere/libQnnHtp.so"


def device(kind: str, **metadata: str) -> SimpleNamespace:
    hardware = SimpleNamespace(
        type=getattr(ort.OrtHardwareDeviceType, kind),
        vendor="Qualcomm",
        vendor_id=0x4D4F4351,
        device_id=0x41,
        metadata=metadata,
    )
    return SimpleNamespace(ep_name=EP_NAME, ep_vendor="Qualcomm", device=hardware)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    system, architecture = request.param
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: architecture)
    monkeypatch.setattr("platform.system", lambda: {"win32": "Windows", "linux": "Linux"}[system])


@pytest.mark.parametrize("machine", [("win32", "ARM64"), ("linux", "aarch64")], indirect=True)
@pytest.mark.parametrize("emulate", [True, False])
@pytest.mark.usefixtures("machine")
def test_a_real_npu_comes_before_every_other_device(emulate: bool) -> None:
    npu_device = device("NPU", Description="Snapdragon X Elite NPU", LUID="4711")

    found = choose([device("GPU"), npu_device, device("CPU")], htp_backend=BACKEND, emulate=emulate)

    assert found.status == NpuStatus(
        available=True, emulated=False, name="Snapdragon X Elite NPU", reason=None
    )
    assert found.npu is not None
    assert found.npu.handle is npu_device
    assert dict(found.npu.options) == {}


@pytest.mark.parametrize("machine", [("win32", "ARM64")], indirect=True)
@pytest.mark.usefixtures("machine")
def test_the_identity_of_an_npu_survives_a_restart_of_windows() -> None:
    """The LUID in its metadata does not, and must not make the compiled contexts useless."""
    searches = [
        choose([device("NPU", Description="NPU", LUID=luid)], htp_backend=BACKEND, emulate=False)
        for luid in ("1", "2")
    ]

    first, second = (search.npu for search in searches)
    assert first is not None
    assert second is not None
    assert first.identity == second.identity


@pytest.mark.parametrize("machine", [("linux", "x86_64")], indirect=True)
@pytest.mark.usefixtures("machine")
def test_the_emulator_is_used_only_when_it_is_asked_for_and_says_what_it_is() -> None:
    asked = choose([device("CPU")], htp_backend=BACKEND, emulate=True)
    not_asked = choose([device("CPU")], htp_backend=BACKEND, emulate=False)

    assert asked.status == NpuStatus(
        available=True, emulated=True, name="HTP emulator (Snapdragon X Elite)", reason=None
    )
    assert not_asked.status == NpuStatus(
        available=False,
        emulated=False,
        name=None,
        reason="No NPU device was found by the QNN execution provider.",
    )


@pytest.mark.parametrize(
    ("machine", "emulate", "reason"),
    [
        (("linux", "aarch64"), True, "Linux aarch64 has no emulator of it"),
        (("win32", "AMD64"), False, "a Snapdragon NPU needs the ARM64 build of Python"),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_the_reason_for_no_npu_says_what_would_help(emulate: bool, reason: str) -> None:
    found = choose([device("CPU")], htp_backend=BACKEND, emulate=emulate)

    assert found.npu is None
    assert reason in str(found.reason)


def test_without_its_package_the_search_names_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.embedding.npu.device.find_spec", lambda name: None)

    assert find_npu().status == NpuStatus(available=False, emulated=False, name=None, reason=NOT_INSTALLED)
