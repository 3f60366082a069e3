"""Where the gateway's log goes, and how its lines look."""

import json
import logging
import logging.handlers
from contextlib import suppress
from datetime import UTC, datetime

from engine.files import make_private
from engine.settings import Settings

LOG_BYTES = 5_000_000

access = logging.getLogger("openai_shim.access")


def log_to_file(settings: Settings) -> None:
    """Everything goes to gateway.log, and warnings also to stderr."""
    folder = settings.home.log
    make_private(folder)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    file = RotatingLog(folder / "gateway.log", maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    file.setFormatter(JsonLines() if settings.log_json else plain)
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)
    screen.setFormatter(plain)
    logging.basicConfig(level=logging.INFO, handlers=[file, screen])
    logging.getLogger("engine").setLevel(settings.log_level.upper())


class RotatingLog(logging.handlers.RotatingFileHandler):
    """Goes on in the same file as long as it cannot be moved: on Windows, while somebody reads it."""

    def doRollover(self) -> None:  # noqa: N802
        with suppress(PermissionError):
            super().doRollover()


CLIENT_CLOSED_REQUEST = 499
"""As nginx writes it: cancelled, or its caller has left."""


def log_access(
    request_id: str,
    method: str,
    path: str,
    status: int,
    milliseconds: float,
    cut_off_after: int | None = None,
) -> None:
    """One line for each request, without anything of what was asked.

    cut_off_after: how many pieces of text an unfinished stream had sent.
    """
    facts: dict[str, object] = {
        "request_id": request_id,
        "method": method,
        "path": path,
        "status": status,
        "milliseconds": round(milliseconds, 1),
    }
    line = "%(request_id)s %(method)s %(path)s %(status)d %(milliseconds).1fms"
    if cut_off_after is not None:
        facts["cut_off_after_pieces"] = cut_off_after
        line += ", cut off after %(cut_off_after_pieces)d pieces"
    access.info(line, facts, extra={"facts": facts})


class JsonLines(logging.Formatter):
    """One JSON object a line; those of the access log have their facts as fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        facts = getattr(record, "facts", None)
        line |= facts if facts is not None else {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
