"""The conversations of one request side by side: each is one choice of the answer."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager

from engine.engine import Engine
from engine.types import ChatEvent, ChatRequest, ChatStarted

ChoiceEvent = tuple[int, ChatEvent]
"""An event of a conversation, with the number of the choice that it writes."""


@asynccontextmanager
async def answering(
    engine: Engine, asked: Sequence[ChatRequest], quiet_seconds: float | None = None
) -> AsyncGenerator[tuple[ChatStarted, AsyncGenerator[ChoiceEvent | None]]]:
    """How the first one started, and what comes after all have; None whenever nothing came for so long.

    The first failure is the failure of all. At the end of the block those that still run are cancelled.
    """
    chats = [engine.chat(each) for each in asked]
    async with aclosing(_side_by_side(chats, quiet_seconds)) as events:
        started, early = await _all_started(events, len(chats))
        async with aclosing(_chained(early, events)) as rest:
            yield started, rest


async def _all_started(
    events: AsyncGenerator[ChoiceEvent | None], count: int
) -> tuple[ChatStarted, Sequence[ChoiceEvent]]:
    """And what those that were faster have said meanwhile."""
    started: list[ChatStarted] = []
    early: list[ChoiceEvent] = []
    while len(started) < count:
        match await anext(events):
            case None:
                pass  # in the queue: still nothing to say, and still every status to say it with
            case _, ChatStarted() as event:
                started.append(event)
            case choice:
                early.append(choice)
    return started[0], early


async def _chained(
    early: Sequence[ChoiceEvent], events: AsyncGenerator[ChoiceEvent | None]
) -> AsyncGenerator[ChoiceEvent | None]:
    for choice in early:
        yield choice
    async for later in events:
        yield later


async def _side_by_side(
    chats: Sequence[AsyncGenerator[ChatEvent]], quiet_seconds: float | None
) -> AsyncGenerator[ChoiceEvent | None]:
    coming = {asyncio.ensure_future(anext(chat)): index for index, chat in enumerate(chats)}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, timeout=quiet_seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                yield None
            for task in sorted(done, key=coming.__getitem__):
                index = coming.pop(task)
                try:
                    event = task.result()
                except StopAsyncIteration:
                    continue
                coming[asyncio.ensure_future(anext(chats[index]))] = index
                yield index, event
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)  # a generator must stop before it can be closed
        for chat in chats:
            await chat.aclose()
