"""Files of a model on disk: what they hash to, whether there is room for them, what a failed write means."""

import errno
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from engine.errors import ModelSupplyError
from engine.models.registry import SourceFile

# EFBIG: the file system or a quota allows no file of this size (FAT32 ends at 4 GiB).
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class StoredFile:
    name: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, file: Path, root: Path) -> "StoredFile":
        return cls(file.relative_to(root).as_posix(), sha256(file), file.stat().st_size)


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_whole(file: Path, expected: SourceFile) -> bool:
    """Whether it is there, and is what it should be."""
    return file.is_file() and file.stat().st_size == expected.size_bytes and sha256(file) == expected.sha256


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises ModelSupplyError if the disk that holds `folder` has less free than that."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise ModelSupplyError(
            f"{decimal(needed_bytes)} are needed and {decimal(free_bytes)} are free on the disk of {folder}. "
            "Free some space, or put the gateway's home elsewhere with NPU_GATEWAY_HOME."
        )


@contextmanager
def explained_writes(folder: Path) -> Iterator[None]:
    """Turns an OSError of the block into a ModelSupplyError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise ModelSupplyError(
                f"The disk of {folder} is full. Free some space and run the same command again: "
                "it goes on where it stopped."
            ) from error
        raise ModelSupplyError(f"{folder} cannot be changed: {error}") from error
