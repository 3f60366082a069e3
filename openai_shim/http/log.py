"""Where the gateway's log goes, and how its lines look."""

import json
import logging
import math
import time
from datetime import UTC, datetime

from engine.files import make_private
from engine.logs import BoundedLog, SafeLines
from engine.settings import Settings

QUIET_SECONDS = 60.0

access = logging.getLogger("openai_shim.access")


def log_to_file(settings: Settings, *, on_screen: bool) -> None:
    """Everything goes to gateway.log, and warnings also to stderr where a person may look at it."""
    folder = settings.home.log
    make_private(folder)
    plain = SafeLines("%(asctime)s %(levelname)s %(name)s: %(message)s")
    file = logging.StreamHandler(BoundedLog(folder / "gateway.log"))
    file.setFormatter(JsonLines() if settings.log_json else plain)
    handlers: list[logging.Handler] = [file]
    if on_screen:
        screen = logging.StreamHandler()
        screen.setLevel(logging.WARNING)
        screen.setFormatter(plain)
        handlers.append(screen)
    # Else standard error, a file too, grows for as long as no line can be kept.
    logging.raiseExceptions = False
    logging.basicConfig(level=logging.INFO, handlers=handlers)
    logging.getLogger("engine").setLevel(settings.log_level.upper())
    logging.getLogger("asyncio").addFilter(OnceAMinute())


class OnceAMinute(logging.Filter):
    """Of lines that begin alike: asyncio says a hundred times a second that it cannot accept."""

    def __init__(self) -> None:
        super().__init__()
        self._shown_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        kind = str(record.msg).partition("\n")[0]
        if now - self._shown_at.get(kind, -math.inf) < QUIET_SECONDS:
            return False
        self._shown_at = {each: at for each, at in self._shown_at.items() if now - at < QUIET_SECONDS}
        self._shown_at[kind] = now
        return True


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
        return json.dumps(line)  # in ASCII: the path of a request can be anything
