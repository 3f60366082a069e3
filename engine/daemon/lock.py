"""The operating system's locks: freed by the kernel when their holder ends, however it ends."""

from filelock import FileLock, Timeout

from engine.files import make_private
from engine.settings import Home


def home_lock(home: Home, name: str, wait_seconds: float = 0) -> FileLock:
    """A lock among all processes that use this home, to be entered with `with`. Raises filelock.Timeout.

    No fallback to a marker file on file systems without locks: that would survive a crash.
    """
    make_private(home.run)
    file = home.run / f"{name}.lock"
    return FileLock(file, timeout=wait_seconds, thread_local=False, fallback_to_soft=False)


def is_held(lock: FileLock) -> bool:
    """Whether another process has the lock; takes it for an instant when it is free."""
    try:
        with lock:
            return False
    except Timeout:
        return True
