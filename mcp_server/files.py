"""Vectors as files below the gateway's home, for when they are too many for a conversation.

JSON Lines and not .npy: at most 64 texts fit into one call, half a megabyte, so size decides nothing; every
language reads it, each vector stands beside its text, and this process needs no numpy to write it.
"""

import json
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BadInput, EngineError
from engine.files import make_private

URI = "gateway://vectors/{name}"
MIME_TYPE = "application/jsonl"
KEEP_FILES = 200
_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class VectorFile:
    """name: random, so that whoever is not told it cannot ask for the file."""

    name: str
    path: Path
    size_bytes: int

    @property
    def uri(self) -> str:
        return URI.format(name=self.name)


class VectorFiles:
    """One line per text: {"text": ..., "vector": [...]}. The newest 200 files of the folder are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, texts: Iterable[str], vectors: Iterable[Iterable[float]]) -> VectorFile:
        """Raises EngineError when the file cannot be written."""
        name = secrets.token_hex(16)
        path = self._path(name)
        try:
            make_private(self._folder)
            _write_private(path, map(_line, texts, vectors))
        except OSError as error:
            with suppress(OSError):
                path.unlink()
            raise EngineError(
                f"{path} cannot be written: {error.strerror}. Ask for another output."
            ) from error
        self._forget_oldest(path)
        return VectorFile(name, path, path.stat().st_size)

    def read(self, name: str) -> str:
        """Raises BadInput for a name that `write` has not given, or whose file is gone."""
        if _NAME.fullmatch(name):
            with suppress(FileNotFoundError):
                return self._path(name).read_text(encoding="utf-8")
        raise BadInput(f"There is no such file of vectors. The newest {KEEP_FILES} are kept: embed again.")

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    def _forget_oldest(self, newest: Path) -> None:
        """newest: stays even if the clock went back and the others seem newer."""
        others = sorted(set(self._folder.glob("*.jsonl")) - {newest}, key=_written_at, reverse=True)
        for file in others[KEEP_FILES - 1 :]:
            with suppress(OSError):  # another process was faster, or (Windows) somebody reads it
                file.unlink()


def _line(text: str, vector: Iterable[float]) -> str:
    """Nine significant digits give back the same float32."""
    return json.dumps({"text": text, "vector": [float(f"{number:.9g}") for number in vector]}) + "\n"


def _write_private(path: Path, lines: Iterable[str]) -> None:
    """A new file that only this user can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(lines)


def _written_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
