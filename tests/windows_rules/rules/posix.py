"""The product finds in `os` and `signal` what Windows has, and `os.chmod` changes nothing but read-only.

Libraries keep theirs: they run the branches for this system, which need them. So do `getuid` and `uname`, in
branches of the product that mypy sees are not for Windows (`mypy --platform win32`).
"""

import os
import signal
import stat
import sys
from types import ModuleType
from typing import Any

PRODUCT = ("engine", "mcp_server", "openai_shim")
LACKING = {
    os: (
        *("chown", "confstr", "ctermid", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups"),
        *("getloadavg", "getpgid", "getpgrp", "getpriority", "getsid", "killpg", "lchown"),
        *("mkfifo", "nice", "openpty", "pipe2", "sched_getaffinity", "setpgid", "setpriority", "setsid"),
        *("setuid", "statvfs", "sync", "wait", "wait3", "wait4", "WNOHANG", "O_NOFOLLOW"),
    ),
    signal: (
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP"),
        *("SIGUSR1", "SIGUSR2", "alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait"),
    ),
}


def enforce() -> None:
    for module, names in LACKING.items():
        _hide(module, names)
    chmod = os.chmod

    def only_read_only(path: Any, mode: int, **options: Any) -> None:
        if _is_product(sys._getframe(1).f_globals):
            before = stat.S_IMODE(os.stat(path).st_mode)
            mode = before | 0o200 if mode & 0o200 else before & ~0o222
        chmod(path, mode, **options)

    os.chmod = only_read_only


def _hide(module: ModuleType, names: tuple[str, ...]) -> None:
    hidden = {name: vars(module).pop(name) for name in names if hasattr(module, name)}

    def found(name: str) -> Any:
        if name not in hidden or _is_product(sys._getframe(1).f_globals):
            raise AttributeError(f"Windows' {module.__name__!r} has no {name!r}")
        return hidden[name]

    module.__getattr__ = found  # type: ignore[method-assign]


def _is_product(variables: dict[str, Any]) -> bool:
    return str(variables.get("__name__")).partition(".")[0] in PRODUCT
