"""What the log makes of lines that come without end, or of bytes that are no text."""

import json
import logging

import pytest

from openai_shim.http.log import JsonLines, OnceAMinute


def record(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("asyncio", logging.ERROR, "", 0, message, values, None)


def test_of_lines_that_begin_alike_one_a_minute_is_shown() -> None:
    once = OnceAMinute()
    full, lost = "socket.accept() out of system resource", "Future exception was never retrieved"

    shown = [once.filter(record(f"{kind}\nmore: {n}")) for n in range(3) for kind in (full, lost)]

    assert shown == [True, True, False, False, False, False]


@pytest.mark.parametrize("path", ["/\x1b[31m", "/\x9b", "/\udcff", "/a\nb", "/grüße"])
def test_a_json_line_is_ascii_on_one_line(path: str) -> None:
    line = JsonLines().format(record("%s", path))

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == path
