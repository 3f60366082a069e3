"""A home that is deleted under a running gateway takes the lock and the endpoint file with it.

On POSIX the kernel then guards a file that nobody can find: the next client would see no gateway and start a
second one. (Windows deletes no file that is open.)
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from engine.daemon.claim import Claim
from engine.daemon.endpoint import Endpoint, publish
from engine.daemon.lock import home_lock
from engine.daemon.loop import alongside
from engine.files import make_private
from engine.settings import Home

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0


@asynccontextmanager
async def keeping_its_place(
    claimed: Claim, closing: asyncio.Event, *, check_seconds: float = CHECK_SECONDS
) -> AsyncGenerator[None]:
    """Take the place of `claimed` again, for the rest of the block, whenever its home was deleted.

    Sets `closing` when another gateway was faster: it serves the home from now on.
    """
    with ExitStack() as held:
        async with alongside(_watch(claimed, closing, held, check_seconds)):
            yield


async def _watch(claimed: Claim, closing: asyncio.Event, held: ExitStack, check_seconds: float) -> None:
    home = claimed.home
    file = Path(home_lock(home, "gateway").lock_file)
    place, is_told = _identity(file), False
    while not await _set_within(closing, check_seconds):
        if _identity(file) == place:
            continue
        try:
            held.enter_context(await asyncio.to_thread(_take, home, claimed.endpoint))
        except Timeout:
            logger.warning("%s was deleted and another gateway serves it now: this one leaves", home.root)
            closing.set()
            return
        except OSError as error:
            if not is_told:
                logger.warning("%s was deleted and cannot be made anew: %s", home.root, error)
            is_told = True
            continue
        place, is_told = _identity(file), False
        logger.warning("%s was deleted while this gateway runs; it was made anew", home.root)


def _take(home: Home, endpoint: Endpoint) -> FileLock:
    """Raises Timeout when another gateway has the place, OSError when there can be none."""
    lock = home_lock(home, "gateway", wait_seconds=0.2)  # clients that ask whether it is free are waited out
    lock.acquire()
    try:
        make_private(home.log)
        publish(home, endpoint)
    except OSError:
        lock.release()
        raise
    return lock


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
