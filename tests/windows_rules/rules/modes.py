"""A folder made with mode 0o700 cannot be entered by its own user when an elevated process made it."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

from tests.windows_rules.rules.winerror import ACCESS_DENIED, refused

HOME_FOLDERS = {"contexts", "log", "models", "out", "run"}


def enforce() -> None:
    if "pip" in sys.orig_argv:  # what it makes in its scratch folder is gone when it ends
        return
    mkdir = os.mkdir

    def checked(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if mode == 0o700 and HOME_FOLDERS.intersection(Path(os.fsdecode(path)).parts):
            raise refused(PermissionError, errno.EACCES, ACCESS_DENIED, path)
        mkdir(path, mode, dir_fd=dir_fd)

    os.mkdir = checked
