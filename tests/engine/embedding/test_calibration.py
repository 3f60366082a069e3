from pathlib import Path

import pytest

from engine.embedding.calibration import CalibrationFile
from engine.embedding.devices.costs import Cost

COSTS = {"cpu": {32: Cost(0.003, 0.001)}, "npu": {32: Cost(0.002, 0.002)}}


def test_what_was_measured_is_found_by_the_next_start(tmp_path: Path) -> None:
    CalibrationFile(tmp_path / "c.json", model_revision="r1", npu="chip").write(COSTS)

    assert CalibrationFile(tmp_path / "c.json", model_revision="r1", npu="chip").read() == COSTS


@pytest.mark.parametrize(("revision", "npu"), [("r2", "chip"), ("r1", "other chip")], ids=["model", "npu"])
def test_what_was_measured_on_something_else_is_measured_again(
    tmp_path: Path, revision: str, npu: str
) -> None:
    CalibrationFile(tmp_path / "c.json", model_revision="r1", npu="chip").write(COSTS)

    assert CalibrationFile(tmp_path / "c.json", model_revision=revision, npu=npu).read() == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}'])
def test_a_damaged_file_is_measured_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text, "utf-8")

    assert CalibrationFile(tmp_path / "c.json", model_revision="r1", npu="chip").read() == {}


def test_a_disk_that_takes_no_file_costs_the_next_start_only(tmp_path: Path) -> None:
    (tmp_path / "contexts").write_text("a file where the folder should be", "utf-8")
    file = CalibrationFile(tmp_path / "contexts" / "c.json", model_revision="r1", npu="chip")

    file.write(COSTS)

    assert file.read() == {}
