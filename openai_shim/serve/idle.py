"""A gateway that a client started leaves when nobody has used it for a while."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from engine.daemon.loop import alongside
from engine.engine import Engine

CHECK_SECONDS = 30.0
IDLE_CHECKS = 60
"""Half an hour. Checks are counted, not time: what a laptop sleeps through is no idling."""


@asynccontextmanager
async def leaving_when_idle(engine: Engine, closing: asyncio.Event) -> AsyncGenerator[None]:
    """Sets `closing` during the block once no model has worked, waited or loaded for half an hour."""

    async def leave() -> None:
        await idle(engine)
        closing.set()

    async with alongside(leave()):
        yield


async def idle(engine: Engine, *, checks: int = IDLE_CHECKS, check_seconds: float = CHECK_SECONDS) -> None:
    """Returns after so many checks in a row that found nothing done since the one before.

    The measure is work, not connections: clients keep those open for days, and asking for /health is no use.
    """
    quiet, done_before = 0, _requests(engine)
    while quiet < checks:
        await asyncio.sleep(check_seconds)
        done = _requests(engine)
        quiet = 0 if done != done_before or _is_busy(engine) else quiet + 1
        done_before = done


def _requests(engine: Engine) -> int:
    return sum(model.requests for model in engine.models())


def _is_busy(engine: Engine) -> bool:
    queue = engine.health().queue
    return queue.embedding + queue.chat > 0 or any(model.state == "loading" for model in engine.models())
