"""One conversation as a stream of server-sent events."""

import logging
from contextlib import aclosing

from engine.types import ChatEvent, ChatFinished, ChatPiece, ChatRequest, ChatStarted
from openai_shim import sse
from openai_shim.answers import Answer
from openai_shim.context import Request, say_devices
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
        answer = kind.by(engine.model(started.model))
        say_devices(request, started.device)
        event = await anext(events)
        response = await request.respond(
            content_type="text/event-stream; charset=utf-8",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        try:
            opening = b"".join(sse.frame(chunk) for chunk in answer.opening_chunks())
            await response.send(opening + _frames(answer, event, with_usage=with_usage))
            async for event in events:
                await response.send(_frames(answer, event, with_usage=with_usage))
        except Exception as error:  # the status is sent; only the stream can still say it
            logger.error("%s failed while streaming", request.ctx.request_id, exc_info=error)
            await response.send(sse.frame(describe(error).body()))


def _frames(answer: Answer, event: ChatEvent | None, *, with_usage: bool) -> bytes:
    match event:
        case None:
            return sse.PING
        case ChatPiece(text):
            return sse.frame(answer.piece_chunk(text))
        case ChatFinished(finish_reason):
            usage = sse.frame(answer.usage_chunk(event)) if with_usage else b""
            return sse.frame(answer.closing_chunk(finish_reason)) + usage + sse.DONE
        case ChatStarted():
            raise AssertionError("a conversation started twice")
