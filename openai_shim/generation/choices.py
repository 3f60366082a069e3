"""The conversations of one request side by side: each is one choice of the answer."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Collection, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TypeVar

from engine.engine import Engine
from engine.types import ChatEvent, ChatRequest, ChatStarted

ChoiceEvent = tuple[int, ChatEvent]
"""An event of a conversation, with the number of the choice that it writes."""

T = TypeVar("T")


@asynccontextmanager
async def answering(
    engine: Engine, asked: Sequence[ChatRequest], quiet_seconds: float | None = None
) -> AsyncGenerator[tuple[ChatStarted, AsyncGenerator[ChoiceEvent | None]]]:
    """How the first one started, and what comes after all have; None whenever nothing came for so long.

    The first failure is the failure of all. At the end of the block those that still run are cancelled.
    """
    async with AsyncExitStack() as stack:
        chats = [await stack.enter_async_context(aclosing(engine.chat(each))) for each in asked]
        started, *_ = await all_of([anext(chat) for chat in chats])
        assert isinstance(started, ChatStarted), started
        events = await stack.enter_async_context(aclosing(_side_by_side(chats, quiet_seconds)))
        yield started, events


async def all_of(results: Sequence[Awaitable[T]]) -> Sequence[T]:
    """At the same time; if one fails or the caller leaves, the others end."""
    tasks = [asyncio.ensure_future(result) for result in results]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _ended(tasks)


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
        await _ended(coming)


async def _ended(tasks: Collection[asyncio.Future[T]]) -> None:
    """A generator must stop before it can be closed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
