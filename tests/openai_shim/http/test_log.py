"""The log on disk."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from openai_shim.http.log import RotatingLog


def test_a_log_that_somebody_reads_goes_on_in_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(13, "somebody reads it")

    monkeypatch.setattr(os, "rename", refused)
    log = RotatingLog(tmp_path / "gateway.log", maxBytes=10, backupCount=1, encoding="utf-8")
    for text in ("the first", "the second"):
        log.handle(logging.makeLogRecord({"msg": text}))
    log.close()

    assert (tmp_path / "gateway.log").read_text() == "the first\nthe second\n"
    assert capsys.readouterr().err == ""
