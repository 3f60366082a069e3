"""Log files that stay small while they are written, with lines that are safe to look at."""

import io
import logging
import os
import sys
from pathlib import Path

import pytest

from engine.logs import BoundedLog, SafeLines, keep


def test_a_full_log_starts_over_beside_the_one_before(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "a.log", limit=10)
    for number in range(7):
        log.write(f"{number:03}\n")
    log.close()

    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "a.log": "006\n",
        "a.log.1": "004\n005\n",
    }


def test_a_log_goes_on_where_the_last_process_ended(tmp_path: Path) -> None:
    for word in ("one\n", "two\n"):
        log = BoundedLog(tmp_path / "a.log")
        log.write(word)
        log.close()

    assert (tmp_path / "a.log").read_text() == "one\ntwo\n"


def test_a_full_log_that_cannot_be_renamed_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, while somebody reads it."""

    def refused(*_: object) -> None:
        raise PermissionError(13, "used by another process")

    monkeypatch.setattr(os, "replace", refused)
    log = BoundedLog(tmp_path / "a.log", limit=10)
    for number in range(4):
        log.write(f"{number:03}\n")
    log.close()

    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.log": "002\n003\n"}


@pytest.mark.skipif(sys.platform == "win32", reason="no folder with an open file can be moved there")
def test_a_log_whose_folder_was_away_goes_on_when_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    log = BoundedLog(folder / "a.log", limit=4)
    log.write("one\n")
    folder.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            log.write("two\n")
    folder.mkdir()
    log.write("six\n")
    log.close()

    assert (folder / "a.log").read_text() == "six\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no file that is open")
def test_a_log_that_is_deleted_goes_on_in_a_new_one(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "a.log")
    log.write("one\n")
    (tmp_path / "a.log").unlink()
    log.write("two\n")
    log.close()

    assert (tmp_path / "a.log").read_text() == "two\n"


def test_what_a_process_says_without_end_is_bounded(tmp_path: Path) -> None:
    keep(io.BytesIO(b"0123456789abcde\n" * 700_000), tmp_path / "a.log")  # 11.2 MB

    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert all(file.stat().st_size <= 5_000_000 for file in tmp_path.iterdir())


def test_a_log_that_cannot_be_written_stops_no_process(tmp_path: Path) -> None:
    said = io.BytesIO(b"a\nb\n")

    keep(said, tmp_path)  # a folder

    assert said.read() == b""


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("one\ntwo", "one\\ntwo"),
        ("one\r\x08two", "one\\r\\x08two"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("grüße\tund 日本", "grüße\tund 日本"),
    ],
)
def test_control_characters_are_written_out(text: str, written: str) -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "%s", (text,), None)

    assert SafeLines("%(levelname)s %(message)s").format(record) == f"INFO {written}"


def test_a_traceback_keeps_its_lines_and_loses_its_colours() -> None:
    try:
        raise ValueError("\x1b[31m")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 0, "failed", (), sys.exc_info())

    lines = SafeLines().format(record).splitlines()

    assert (lines[0], lines[-1]) == ("failed", "ValueError: \\x1b[31m")
