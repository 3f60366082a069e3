"""Log files that stay small while they are written, with lines that are safe to look at."""

import logging
import os
import re
from io import FileIO
from pathlib import Path
from typing import BinaryIO

LOG_BYTES = 5_000_000
LINE_BYTES = 65_536


class BoundedLog:
    """A text stream into a file that starts over when it is full; what was in it moves to `NAME.1`.

    limit: bytes of each of the two. The file appears with the first line.
    """

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        self._path = path
        self._limit = limit
        self._file: FileIO | None = None

    def write(self, text: str) -> None:
        """Raises OSError."""
        encoded = text.encode(errors="backslashreplace")  # addresses that are no UTF-8 have surrogates
        written = encoded[: self._limit]
        if self._file and os.fstat(self._file.fileno()).st_nlink == 0:
            self.close()  # it was deleted, which POSIX allows: nobody would ever read on
        file = self._file or self._opened("ab")
        if file.tell() + len(written) > self._limit:
            file = self._started_over()
        file.write(written)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def _started_over(self) -> FileIO:
        self.close()
        try:
            os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
        except OSError:  # Windows renames no file that somebody reads: then what was in it is given up
            return self._opened("wb")
        return self._opened("ab")

    def _opened(self, mode: str) -> FileIO:
        self._file = FileIO(self._path, mode)
        return self._file


def keep(output: BinaryIO, path: Path) -> None:
    """Write what a process says to a bounded file until it has nothing more to say.

    Goes on reading when the file cannot be written: the process would wait for ever at a full pipe.
    """
    log = BoundedLog(path)
    while line := output.readline(LINE_BYTES):
        try:
            log.write(line.decode(errors="backslashreplace"))
        except OSError:
            continue
    log.close()


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class SafeLines(logging.Formatter):
    """Other people's words command no terminal and begin no line: control characters are written out."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = record.message.replace("\n", "\\n")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().format(record))
