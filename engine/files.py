"""Changes to files and folders that succeed on every system.

Windows refuses to move or remove what somebody has open. Defender and the indexer open whatever is new, and
clients read the endpoint file, each for a moment: such a refusal is waited out.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PAUSES_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
_MOMENTARY = {5, 32, 33, 145}
"""ERROR_ACCESS_DENIED (being removed), SHARING_VIOLATION, LOCK_VIOLATION, DIR_NOT_EMPTY (its files are)."""


def move(source: Path, target: Path) -> Path:
    """Put a file or folder in its place, in one step; a file that is there is replaced. Raises OSError."""
    return _patiently(lambda: source.replace(target))


def remove_file(file: Path) -> None:
    """Remove a file that may be gone already. Raises OSError."""
    _patiently(lambda: file.unlink(missing_ok=True))


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; it may be gone already. Raises OSError."""
    if folder.exists():
        _patiently(lambda: shutil.rmtree(folder))


def make_private(folder: Path) -> None:
    """Make a folder, and its parents, that no other user may enter.

    The mode follows in a second step, which does nothing on Windows, where the profile folder protects the
    home: a folder that an elevated process makes there with mode 0o700 is closed to its own user.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)


@contextmanager
def scratch_folder(parent: Path, prefix: str = "") -> Iterator[Path]:
    """A new folder for the length of the block; what cannot be removed at its end stays.

    Not `tempfile`'s, which makes its folders with mode 0o700.
    """
    folder = parent / f"{prefix}{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        with suppress(OSError):
            remove_folder(folder)


def _patiently(change: Callable[[], T]) -> T:
    for pause in PAUSES_SECONDS:
        try:
            return change()
        except OSError as error:
            if getattr(error, "winerror", None) not in _MOMENTARY:
                raise
        time.sleep(pause)
    return change()
