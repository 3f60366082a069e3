"""Nobody renames, replaces or removes a file that is open anywhere, nor a folder with one in it; nor, as
Defender and the indexer look at what is new, any folder in its first 300 ms; nor renames onto what is there.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from tests.windows_rules.rules import WORLD
from tests.windows_rules.rules.winerror import ACCESS_DENIED, ALREADY_EXISTS, SHARING_VIOLATION, refused

LOOKED_AT_SECONDS = 0.3


def enforce() -> None:
    mkdir, rename = os.mkdir, os.rename
    made: dict[str, float] = {}
    now = time.perf_counter

    def watched_mkdir(path: Any, *args: Any, **options: Any) -> None:
        mkdir(path, *args, **options)
        made[_absolute(path)] = now()

    def check(path: Any) -> None:
        place = _absolute(path)
        if not place.startswith(os.environ[WORLD]):
            return
        if now() - made.get(place, -1.0) < LOOKED_AT_SECONDS and os.path.isdir(place):
            raise refused(PermissionError, errno.EACCES, ACCESS_DENIED, path)
        if any(each == place or each.startswith(place + os.sep) for each in _open_files()):
            raise refused(PermissionError, errno.EACCES, SHARING_VIOLATION, path)

    def checked(change: Callable[..., None]) -> Callable[..., None]:
        def function(path: Any, *args: Any, **options: Any) -> None:
            check(path)
            for target in args:
                check(target)
            change(path, *args, **options)

        return function

    def renamed(source: Any, target: Any, **options: Any) -> None:
        if os.path.lexists(target) and _absolute(target).startswith(os.environ[WORLD]):
            raise refused(FileExistsError, errno.EEXIST, ALREADY_EXISTS, target)
        rename(source, target, **options)

    os.mkdir = watched_mkdir
    os.rename = checked(renamed)
    os.replace = checked(os.replace)
    os.unlink = os.remove = checked(os.unlink)
    os.rmdir = checked(os.rmdir)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]  # as there: it removes by path


def _absolute(path: Any) -> str:
    folder, name = os.path.split(os.fsdecode(path).rstrip(os.sep))
    return os.path.join(os.path.realpath(folder), name)


def _open_files() -> Iterator[str]:
    """Of all processes where the system tells, else of this one."""
    if not os.path.isdir("/proc/self/fd"):
        import psutil

        yield from (file.path for file in psutil.Process().open_files())
        return
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is another user's
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    yield os.readlink(f"/proc/{pid}/fd/{number}")
