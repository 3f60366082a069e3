"""A gateway that a client started leaves when nobody has used it for a while; the next client starts another."""

import asyncio
import time

from engine.engine import Engine

IDLE_SECONDS = 30 * 60.0


async def idle(engine: Engine, *, idle_seconds: float = IDLE_SECONDS, check_seconds: float = 30.0) -> None:
    """Returns when no model has worked, waited or loaded for `idle_seconds`.

    The clock is work, not connections: clients keep those open for days, and a poll of /health is no use.
    """
    worked, since = _work_done(engine), time.monotonic()
    while time.monotonic() < since + idle_seconds:
        await asyncio.sleep(check_seconds)
        done = _work_done(engine)
        if done != worked or _is_busy(engine):
            worked, since = done, time.monotonic()


def _work_done(engine: Engine) -> int:
    return sum(model.requests for model in engine.models())


def _is_busy(engine: Engine) -> bool:
    queue = engine.health().queue
    return queue.embedding + queue.chat > 0 or any(model.state == "loading" for model in engine.models())
