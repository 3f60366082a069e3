"""The answer to one request as a stream of server-sent events."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from sanic.response import BaseHTTPResponse
from sanic.signals import Event

from engine.types import ChatEvent, ChatRequest, ChatStarted
from openai_shim.generation.accounting import StreamAccounting
from openai_shim.generation.choices import answering
from openai_shim.http import sse
from openai_shim.http.context import Operation, Request, say_devices, say_loosened
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
    operation: Operation,
    frames_by: Callable[[ChatStarted], Frames],
) -> None:
    """Headers go out with the first piece, so that all that can fail before it fails with its own status.

    Unless the prompt takes longer to read than KEEP_ALIVE_SECONDS: then the stream opens with a comment.
    """
    async with answering(request.app.ctx.engine, asked, KEEP_ALIVE_SECONDS) as (started, events):
        say_devices(request, started.device)
        say_loosened(request, started.loosened)
        frames, accounting = frames_by(started), StreamAccounting(operation, started, len(asked))
        first = await anext(events)
        response = await _opened(request)
        try:
            accounting.see(first)
            await response.send(frames.opening() + (frames.of(*first) if first else sse.PING))
            async for event in events:
                accounting.see(event)
                await response.send(frames.of(*event) if event else sse.PING)
        except asyncio.CancelledError:  # the client has left, or the gateway ends
            request.ctx.cut_off_after = accounting.pieces
            await _tell_the_end(request, response)
            raise
        except Exception as error:  # the status is sent; only the stream can still say it
            logger.error("%s failed while streaming", request.ctx.request_id, exc_info=error)
            await response.send(frames.failed(describe(error, request.ctx.wire_names)))
        request.ctx.account = accounting.account


async def _opened(request: Request) -> BaseHTTPResponse:
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    response: BaseHTTPResponse = await request.respond(
        content_type="text/event-stream; charset=utf-8", headers=headers
    )
    return response


async def _tell_the_end(request: Request, response: BaseHTTPResponse) -> None:
    """Sanic does so itself for every reply but one that is cut off."""
    ended = {"request": request, "response": response}
    await request.app.dispatch(Event.HTTP_LIFECYCLE_RESPONSE.value, inline=True, context=ended)
