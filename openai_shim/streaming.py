"""One conversation as a stream of server-sent events."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Literal, Protocol

from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    ChatToolCall,
    ModelStatus,
)
from openai_shim import sse
from openai_shim.answers import Answer, JsonObject
from openai_shim.context import Request, Work, say_devices
from openai_shim.errors import Failure, describe

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 10.0
"""Proxies drop connections that are silent for 30 to 60 seconds; reading a long prompt can take longer."""


class Frames(Protocol):
    """The bytes of one stream."""

    def opening(self) -> bytes: ...

    def of(self, event: ChatEvent) -> bytes: ...

    def failed(self, failure: Failure) -> bytes: ...


async def stream(
    request: Request,
    asked: ChatRequest,
    frames_by: Callable[[ModelStatus], Frames],
    operation: Literal["chat", "text_completion"],
) -> None:
    """Headers go out with the first piece, so that all that can fail before it fails with its own status.

    Unless the prompt takes longer to read than KEEP_ALIVE_SECONDS: then the stream opens with a comment.
    """
    engine = request.app.ctx.engine
    async with aclosing(sse.paced(engine.chat(asked), KEEP_ALIVE_SECONDS)) as events:
        while (started := await anext(events)) is None:
            pass  # in the queue: still nothing to say, and still every status to say it with
        assert isinstance(started, ChatStarted)
        say_devices(request, started.device)
        frames, account = frames_by(engine.model(started.model)), Account(operation, started)
        first = await anext(events)
        account.see(first)
        response = await request.respond(
            content_type="text/event-stream; charset=utf-8",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        try:
            await response.send(frames.opening() + _bytes(frames, first))
            async for event in events:
                account.see(event)
                await response.send(_bytes(frames, event))
        except Exception as error:  # the status is sent; only the stream can still say it
            logger.error("%s failed while streaming", request.ctx.request_id, exc_info=error)
            await response.send(frames.failed(describe(error)))
        request.ctx.work = account.work


def _bytes(frames: Frames, event: ChatEvent | None) -> bytes:
    return sse.PING if event is None else frames.of(event)


class Account:
    """What is worth counting about one conversation, from its events. work: None until it has finished."""

    def __init__(self, operation: Literal["chat", "text_completion"], started: ChatStarted) -> None:
        self.work: Work | None = None
        self._operation = operation
        self._started = started
        self._first_token_at: float | None = None

    def see(self, event: ChatEvent | None) -> None:
        match event:
            case ChatPiece():
                self._first_token_at = self._first_token_at or time.perf_counter()
            case ChatFinished(usage=usage):
                self.work = Work(
                    self._operation,
                    self._started.model,
                    (self._started.device,),
                    usage.prompt_tokens,
                    usage.completion_tokens,
                    self._first_token_at,
                )


class Chunks:
    """The objects of a streamed chat or text completion."""

    def __init__(self, answer: Answer, *, with_usage: bool) -> None:
        self._answer = answer
        self._with_usage = with_usage
        self._calls = 0

    def opening(self) -> Sequence[JsonObject]:
        return self._answer.opening_chunks()

    def of(self, event: ChatEvent) -> Sequence[JsonObject]:
        match event:
            case ChatPiece():
                return [self._answer.piece_chunk(event)]
            case ChatToolCall(call):
                self._calls += 1
                return [self._answer.call_chunk(self._calls - 1, call)]
            case ChatFinished(finish_reason):
                usage = [self._answer.usage_chunk(event)] if self._with_usage else []
                return [self._answer.closing_chunk(finish_reason), *usage]
            case _:
                raise AssertionError(f"unexpected in the middle of a conversation: {event}")


class ChunkFrames:
    """Chunks as events without a name, and [DONE] after the last."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def opening(self) -> bytes:
        return b"".join(map(sse.frame, self._chunks.opening()))

    def of(self, event: ChatEvent) -> bytes:
        done = sse.DONE if isinstance(event, ChatFinished) else b""
        return b"".join(map(sse.frame, self._chunks.of(event))) + done

    def failed(self, failure: Failure) -> bytes:
        return sse.frame(failure.body())
