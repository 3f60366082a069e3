"""Text is cp1252 where nobody says otherwise: the standard streams, files, what children print, `locale`."""

import builtins
import io
import locale
import os
import subprocess
import sys
from typing import Any

ENCODING = "cp1252"


def encode_streams() -> None:
    """In a child; this process's own streams are pytest's. Who asks for another encoding gets it."""
    if "PYTHONIOENCODING" in os.environ or os.environ.get("PYTHONUTF8") == "1":
        return
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            errors = "backslashreplace" if stream is sys.stderr else "strict"
            stream.reconfigure(encoding=ENCODING, errors=errors)


def enforce() -> None:
    if os.environ.get("PYTHONUTF8") == "1":
        return
    real_open, popen = io.open, subprocess.Popen.__init__

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *rest: Any, **more: Any
    ) -> Any:
        if "b" not in mode and encoding in (None, "locale"):
            encoding = ENCODING
        return real_open(file, mode, buffering, encoding, *rest, **more)

    def started(self: Any, *args: Any, **options: Any) -> None:
        if options.get("text") or options.get("universal_newlines") or options.get("errors"):
            options["encoding"] = options.get("encoding") or ENCODING
        popen(self, *args, **options)

    builtins.open = io.open = opened
    subprocess.Popen.__init__ = started  # type: ignore[method-assign]
    locale.getpreferredencoding = lambda do_setlocale=True: ENCODING
    if hasattr(locale, "getencoding"):
        locale.getencoding = lambda: ENCODING
