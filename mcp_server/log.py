"""Where the log of an MCP process goes."""

import logging
import os
import sys
import time
from pathlib import Path

from engine.files import make_private
from engine.logs import LOG_BYTES, BoundedLog, SafeLines
from engine.settings import Home

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
KEEP_SECONDS = 7 * 24 * 3600

log = logging.getLogger(__name__)


def log_to(home: Home) -> None:
    """Warnings to standard error, which clients show to people; more to a file of this process."""
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.WARNING)
    kept = _KeptLog(home.log / f"mcp-{os.getpid()}.log")
    for handler in (shown, kept):
        handler.setFormatter(SafeLines(FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[shown, kept])
    _forget_old_logs(home.log)


class _KeptLog(logging.StreamHandler[BoundedLog]):
    """Where its file cannot be written, it says so once and leaves: the conversation goes on without it."""

    def __init__(self, file: Path) -> None:
        super().__init__(BoundedLog(file, LOG_BYTES))
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        try:
            make_private(self._file.parent)
        except OSError:
            self.handleError(record)
        else:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        log.warning("%s cannot be written (%s): no log is kept.", self._file, error.strerror)


def _forget_old_logs(folder: Path) -> None:
    for file in folder.glob("mcp-*.log*"):
        try:
            if file.stat().st_mtime < time.time() - KEEP_SECONDS:
                file.unlink()
        except OSError:  # another process was faster, or (Windows) still writes it
            continue
