"""One conversation as a stream of server-sent events."""

import logging
import time
from contextlib import aclosing

from engine.types import ChatEvent, ChatFinished, ChatPiece, ChatRequest, ChatStarted, ChatToolCall
from openai_shim import sse
from openai_shim.answers import Answer
from openai_shim.context import Request, Work, say_devices
from openai_shim.errors import describe

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 10.0
"""Proxies drop connections that are silent for 30 to 60 seconds; reading a long prompt can take longer."""


async def stream(request: Request, asked: ChatRequest, kind: type[Answer], *, with_usage: bool) -> None:
    """Headers go out with the first piece, so that all that can fail before it fails with its own status.

    Unless the prompt takes longer to read than KEEP_ALIVE_SECONDS: then the stream opens with a comment.
    """
    engine = request.app.ctx.engine
    async with aclosing(sse.paced(engine.chat(asked), KEEP_ALIVE_SECONDS)) as events:
        while (started := await anext(events)) is None:
            pass  # in the queue: still nothing to say, and still every status to say it with
        assert isinstance(started, ChatStarted)
        say_devices(request, started.device)
        frames = _Frames(kind.by(engine.model(started.model)), with_usage=with_usage)
        opening = frames.opening() + frames.of(await anext(events))
        response = await request.respond(
            content_type="text/event-stream; charset=utf-8",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        try:
            await response.send(opening)
            async for event in events:
                await response.send(frames.of(event))
        except Exception as error:  # the status is sent; only the stream can still say it
            logger.error("%s failed while streaming", request.ctx.request_id, exc_info=error)
            await response.send(sse.frame(describe(error).body()))
        request.ctx.work = frames.work(started)


class _Frames:
    """The bytes for each event, and what is worth counting about them."""

    def __init__(self, answer: Answer, *, with_usage: bool) -> None:
        self._answer = answer
        self._with_usage = with_usage
        self._first_token_at: float | None = None
        self._finished: ChatFinished | None = None
        self._calls = 0

    def opening(self) -> bytes:
        return b"".join(sse.frame(chunk) for chunk in self._answer.opening_chunks())

    def of(self, event: ChatEvent | None) -> bytes:
        match event:
            case None:
                return sse.PING
            case ChatPiece():
                self._first_token_at = self._first_token_at or time.perf_counter()
                return sse.frame(self._answer.piece_chunk(event))
            case ChatToolCall(call):
                self._calls += 1
                return sse.frame(self._answer.call_chunk(self._calls - 1, call))
            case ChatFinished():
                self._finished = event
                usage = sse.frame(self._answer.usage_chunk(event)) if self._with_usage else b""
                return sse.frame(self._answer.closing_chunk(event.finish_reason)) + usage + sse.DONE
            case _:
                raise AssertionError(f"unexpected in the middle of a conversation: {event}")

    def work(self, started: ChatStarted) -> Work | None:
        """None if the conversation broke off."""
        if self._finished is None:
            return None
        return Work(
            self._answer.operation,
            started.model,
            (started.device,),
            self._finished.usage.prompt_tokens,
            self._finished.usage.completion_tokens,
            self._first_token_at,
        )
