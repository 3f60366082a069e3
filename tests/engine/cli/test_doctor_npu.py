"""What doctor says of the NPU, its compiled graphs and its calibration."""

import json
import sys
from pathlib import Path

import pytest

from engine.doctor import Finding, npu
from engine.embedding.devices.costs import Cost
from engine.embedding.devices.npu_probe import NpuProbe, probe_npu
from engine.settings import DeviceChoice
from engine.types import NpuStatus
from tests.engine.cli.findings import EMULATOR, HEXAGON, NONE, VERSIONS, context, verdict, write_context


@pytest.mark.parametrize(
    ("probe", "expected", "choice", "state"),
    [
        (NpuProbe(HEXAGON), True, "auto", ("ok", False)),
        (NpuProbe(EMULATOR), False, "auto", ("warn", True)),
        (NpuProbe(NONE), False, "auto", ("ok", False)),
        (NpuProbe(NONE), True, "auto", ("warn", True)),
        (NpuProbe(NONE), False, "npu", ("warn", True)),
        (NpuProbe(NONE, failure="The search crashed."), True, "auto", ("fail", True)),
    ],
)
def test_a_missing_npu_matters_only_where_one_is_expected(
    probe: NpuProbe, expected: bool, choice: DeviceChoice, state: tuple[str, bool]
) -> None:
    assert verdict(npu.check_npu(probe, expected=expected, choice=choice)) == state


def test_a_driver_that_crashes_the_search_is_reported_not_passed_on() -> None:
    crash = [sys.executable, "-c", "import sys; print('boom', file=sys.stderr); sys.exit(9)"]

    assert probe_npu(crash).failure == "The search for an NPU ended with status 0x9: boom"


def test_a_driver_that_hangs_is_given_up_on() -> None:
    hang = [sys.executable, "-c", "input()" if sys.platform == "win32" else "import signal; signal.pause()"]

    assert probe_npu(hang, timeout_seconds=0.5).failure == "The search for an NPU did not end within 0.5 s."


def test_what_a_driver_prints_does_not_disturb_the_answer() -> None:
    answer = json.dumps({"status": vars(HEXAGON), "identity": "hexagon 73"})
    chatty = [sys.executable, "-c", f"print('QNN: hello'); print({answer!r})"]

    assert probe_npu(chatty) == NpuProbe(HEXAGON, "hexagon 73")


@pytest.mark.parametrize(("value", "state"), [(None, "ok"), ("", "ok"), ("0", "ok"), ("1", "warn")])
def test_emulation_is_pointed_out(value: str | None, state: str) -> None:
    assert npu.check_emulation(value).state == state


def test_compiled_graphs_are_listed_with_their_size() -> None:
    found = npu.check_contexts([context("1x128"), context("1x32")], VERSIONS)

    assert found == Finding("compiled graphs", "ok", "1x32, 1x128, 134.0 MB.")


def test_graphs_of_another_version_are_told_apart() -> None:
    old = context("1x64", VERSIONS | {"onnxruntime_qnn": "2.6.0"})

    found = npu.check_contexts([context("1x32"), old], VERSIONS)

    assert found.state == "ok"
    assert found.what.startswith("1x32, ")
    assert "remade by the next gateway: 1x64, of onnxruntime 1.32.0, onnxruntime_qnn 2.6.0" in found.what


def test_a_graph_with_a_changed_byte_is_found_by_reading_it(tmp_path: Path) -> None:
    write_context(tmp_path / "bge-1x32-0", b"compiled")
    (tmp_path / "bge-1x32-0" / "context.onnx").write_bytes(b"compilef")

    seen = npu.check_contexts(npu.stored_contexts(tmp_path, verify=False), VERSIONS)
    read = npu.check_contexts(npu.stored_contexts(tmp_path, verify=True), VERSIONS)

    assert (verdict(seen), verdict(read)) == (("ok", False), ("warn", True))


@pytest.mark.parametrize("lost", ["context.onnx", "context.json"])
def test_a_graph_with_a_lost_file_is_damaged(tmp_path: Path, lost: str) -> None:
    write_context(tmp_path / "bge-1x32-0", b"compiled")
    (tmp_path / "bge-1x32-0" / lost).unlink()

    found = npu.check_contexts(npu.stored_contexts(tmp_path, verify=False), VERSIONS)

    assert found.what == "Damaged: bge-1x32-0."


def test_no_compiled_graphs_are_no_fault(tmp_path: Path) -> None:
    assert verdict(npu.check_contexts(npu.stored_contexts(tmp_path / "no", verify=True), VERSIONS)) == (
        "ok",
        False,
    )


def test_an_npu_without_measured_costs_is_pointed_out() -> None:
    assert verdict(npu.check_calibration(HEXAGON, "auto", {})) == ("warn", True)


def test_the_calibration_names_the_lengths_that_the_npu_is_faster_for() -> None:
    fast, slow = Cost(0.002, 0.001), Cost(0.008, 0.004)

    found = npu.check_calibration(
        HEXAGON, "auto", {"cpu": {32: fast, 64: slow, 128: slow}, "npu": {32: slow, 64: fast}}
    )

    assert found.state == "ok"
    assert found.what.endswith("2 text lengths; the NPU is faster for one text of (tokens): 64.")


@pytest.mark.parametrize(("status", "choice"), [(NONE, "auto"), (HEXAGON, "cpu"), (HEXAGON, "npu")])
def test_without_a_choice_of_devices_no_calibration_is_missed(
    status: NpuStatus, choice: DeviceChoice
) -> None:
    assert verdict(npu.check_calibration(status, choice, {})) == ("ok", False)
