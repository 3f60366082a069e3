"""Server-sent events as OpenAI's clients read them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import orjson

DONE = b"data: [DONE]\n\n"

PING = b": ping\n\n"
"""A comment: clients skip it, proxies and their idle timers do not."""

T = TypeVar("T")


def frame(value: object) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)


async def paced(events: AsyncGenerator[T], quiet_seconds: float) -> AsyncGenerator[T | None]:
    """The events, and None whenever none has come for `quiet_seconds`; closes `events` at the end."""
    async with aclosing(events):
        while True:
            coming = asyncio.ensure_future(anext(events))
            try:
                while not coming.done():
                    await asyncio.wait({coming}, timeout=quiet_seconds)
                    if not coming.done():
                        yield None
            finally:
                if coming.cancel():  # our caller left; the generator must stop before it can be closed
                    await asyncio.wait({coming})
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            yield event
