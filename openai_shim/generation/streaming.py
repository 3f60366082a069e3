"""The answer to one request as a stream of server-sent events."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from sanic.response import BaseHTTPResponse
from sanic.signals import Event

from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    ChatToolCall,
    ModelStatus,
    Usage,
)
from openai_shim.chat.reply import Answer, JsonObject
from openai_shim.generation.choices import ChoiceEvent, answering
from openai_shim.http import sse
from openai_shim.http.context import Operation, Request, Work, say_devices
from openai_shim.http.errors import Failure, describe

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 10.0
"""Proxies drop connections that are silent for 30 to 60 seconds; reading a long prompt can take longer."""


class Frames(Protocol):
    """The bytes of one stream."""

    def opening(self) -> bytes: ...

    def of(self, choice: int, event: ChatEvent) -> bytes: ...

    def failed(self, failure: Failure) -> bytes: ...


async def stream(
    request: Request,
    asked: Sequence[ChatRequest],
    frames_by: Callable[[ModelStatus], Frames],
    operation: Operation,
) -> None:
    """Headers go out with the first piece, so that all that can fail before it fails with its own status.

    Unless the prompt takes longer to read than KEEP_ALIVE_SECONDS: then the stream opens with a comment.
    """
    engine = request.app.ctx.engine
    async with answering(engine, asked, KEEP_ALIVE_SECONDS) as (started, events):
        say_devices(request, started.device)
        frames, account = frames_by(engine.model(started.model)), Account(operation, started, len(asked))
        first = await anext(events)
        response = await request.respond(
            content_type="text/event-stream; charset=utf-8",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        try:
            account.see(first)
            await response.send(frames.opening() + _bytes(frames, first))
            async for event in events:
                account.see(event)
                await response.send(_bytes(frames, event))
        except asyncio.CancelledError:  # the client has left, or the gateway ends
            request.ctx.cut_off_after = account.pieces
            await _tell_the_end(request, response)
            raise
        except Exception as error:  # the status is sent; only the stream can still say it
            logger.error("%s failed while streaming", request.ctx.request_id, exc_info=error)
            await response.send(frames.failed(describe(error)))
        request.ctx.work = account.work


async def _tell_the_end(request: Request, response: BaseHTTPResponse) -> None:
    """Sanic does so itself for every reply but one that is cut off."""
    ended = {"request": request, "response": response}
    await request.app.dispatch(Event.HTTP_LIFECYCLE_RESPONSE.value, inline=True, context=ended)


def _bytes(frames: Frames, event: ChoiceEvent | None) -> bytes:
    return sse.PING if event is None else frames.of(*event)


class Account:
    """What is worth counting about the conversations of one request, from their events.

    pieces: of text, so far. work: None until the last one has finished.
    """

    def __init__(self, operation: Operation, started: ChatStarted, choices: int) -> None:
        self.pieces = 0
        self.work: Work | None = None
        self._operation = operation
        self._started = started
        self._choices = choices
        self._first_at: dict[int, float] = {}
        self._finished: list[ChatFinished] = []
        self._seconds_per_token: list[float] = []

    def see(self, event: ChoiceEvent | None) -> None:
        match event:
            case choice, ChatPiece():
                self.pieces += 1
                self._first_at.setdefault(choice, time.perf_counter())
            case choice, ChatFinished() as finished:
                self._see_end(choice, finished)

    def _see_end(self, choice: int, finished: ChatFinished) -> None:
        self._finished.append(finished)
        later_tokens = finished.usage.completion_tokens - 1
        if choice in self._first_at and later_tokens > 0:
            seconds = time.perf_counter() - self._first_at[choice]
            self._seconds_per_token.append(seconds / later_tokens)
        if len(self._finished) == self._choices:
            self.work = Work(
                self._operation,
                self._started.model,
                (self._started.device,),
                input_tokens=sum(end.usage.prompt_tokens for end in self._finished),
                output_tokens=sum(end.usage.completion_tokens for end in self._finished),
                first_token_at=min(self._first_at.values(), default=None),
                seconds_per_token=tuple(self._seconds_per_token),
                queue_seconds=tuple(end.queue_seconds for end in self._finished),
            )


class Chunks:
    """The objects of a streamed chat or text completion."""

    def __init__(self, answer: Answer, *, with_usage: bool) -> None:
        self._answer = answer
        self._with_usage = with_usage
        self._calls: Counter[int] = Counter()
        self._usages: dict[int, Usage] = {}

    @property
    def complete(self) -> bool:
        return len(self._usages) == self._answer.choices

    def opening(self) -> Sequence[JsonObject]:
        return self._answer.opening_chunks()

    def of(self, choice: int, event: ChatEvent) -> Sequence[JsonObject]:
        match event:
            case ChatPiece():
                return [self._answer.piece_chunk(choice, event)]
            case ChatToolCall(call):
                self._calls[choice] += 1
                return [self._answer.call_chunk(choice, self._calls[choice] - 1, call)]
            case ChatFinished(finish_reason, usage):
                self._usages[choice] = usage
                return [self._answer.closing_chunk(choice, finish_reason), *self._usage()]
            case _:
                raise AssertionError(f"unexpected in the middle of a conversation: {event}")

    def _usage(self) -> Sequence[JsonObject]:
        if not (self._with_usage and self.complete):
            return []
        return [self._answer.usage_chunk([usage for _, usage in sorted(self._usages.items())])]


class ChunkFrames:
    """Chunks as events without a name, and [DONE] after the last."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def opening(self) -> bytes:
        return b"".join(map(sse.frame, self._chunks.opening()))

    def of(self, choice: int, event: ChatEvent) -> bytes:
        frames = b"".join(map(sse.frame, self._chunks.of(choice, event)))
        return frames + sse.DONE if self._chunks.complete else frames

    def failed(self, failure: Failure) -> bytes:
        return sse.frame(failure.body())
