"""Chat over a WebSocket: the requests and the chunks of /v1/chat/completions, each as one message.

    -> {"messages": [...]}      <- {"object": "chat.completion.chunk", ...}, ..., {"type": "done"}
    -> {"type": "cancel"}       <- {"type": "cancelled"}, if an answer was being written

One conversation at a time, any number one after the other. What goes wrong is {"error": {...}}, as in HTTP,
in place of "done", and the connection stays open. When the gateway ends it is closed with the code 1001.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Literal

import orjson
from pydantic import ValidationError
from sanic import Blueprint, Websocket
from sanic.exceptions import WebsocketClosed

from engine.errors import BadInput, EngineError
from engine.types import ChatRequest, ChatStarted
from openai_shim.answers import ChatAnswer, JsonObject
from openai_shim.context import Request, Work
from openai_shim.errors import UnsupportedParameter, describe
from openai_shim.generation_requests import ChatCompletionRequest
from openai_shim.log import log_access
from openai_shim.parsing import read
from openai_shim.streaming import Account, Chunks
from openai_shim.wire import WireModel

logger = logging.getLogger(__name__)

RecordWork = Callable[[Work, float, float], None]
"""Of work: when it ended and when it had been asked for, by time.perf_counter."""

DONE: JsonObject = {"type": "done"}
CANCELLED: JsonObject = {"type": "cancelled"}
CLIENT_CLOSED_REQUEST = 499
"""In the access log, as nginx writes it: cancelled, or its caller has left."""


class Control(WireModel):
    type: Literal["cancel"]


def socket_routes(record_work: RecordWork) -> Blueprint:
    async def chat_stream(request: Request, socket: Websocket) -> None:
        await Talk(request, socket, record_work).run()

    routes = Blueprint("socket", url_prefix="/v1")
    routes.add_websocket_route(chat_stream, "/chat/stream")
    return routes


class Talk:
    """One connection."""

    def __init__(self, request: Request, socket: Websocket, record_work: RecordWork) -> None:
        self._request = request
        self._socket = socket
        self._record_work = record_work
        self._answer: asyncio.Task[None] | None = None
        self._answering = False

    async def run(self) -> None:
        """Until the other side leaves or the gateway ends; Sanic then raises CancelledError."""
        try:
            while (message := await self._socket.recv()) is not None:
                await self._take(message)
        finally:
            await self._end_answer()

    async def _take(self, message: str | bytes) -> None:
        try:
            if _is_control(message):
                read(Control, message, strict=True)
                await self._cancel()
                return
            asked, with_usage = self._asked(message)
        except (ValidationError, EngineError) as error:
            await self._send(describe(error).body())
            return
        self._answering = True
        self._answer = asyncio.create_task(self._converse(asked, with_usage=with_usage))

    async def _cancel(self) -> None:
        if self._answering:
            await self._end_answer()
            await self._send(CANCELLED)

    def _asked(self, message: str | bytes) -> tuple[ChatRequest, bool]:
        """And whether a usage chunk is wanted. Raises ValidationError, BadInput."""
        if self._answering:
            raise BadInput("An answer is being written. Wait for its end, or cancel it.")
        strict = self._request.app.ctx.settings.strict
        wanted, _ = read(ChatCompletionRequest, message, strict=strict)
        if wanted.stream is False or (wanted.n or 1) > 1:
            name = "stream" if wanted.stream is False else "n"
            raise UnsupportedParameter(f"A socket streams one choice. Leave {name} out.", param=name)
        (asked,) = wanted.to_engine()
        return asked, wanted.wants_usage_chunk

    async def _end_answer(self) -> None:
        if self._answer:
            self._answer.cancel()
            await asyncio.wait({self._answer})

    async def _converse(self, asked: ChatRequest, *, with_usage: bool) -> None:
        asked_at = time.perf_counter()
        status = CLIENT_CLOSED_REQUEST
        last: JsonObject | None = None
        try:
            work = await self._stream(asked, with_usage=with_usage)
            self._record_work(work, time.perf_counter(), asked_at)
            status, last = 200, DONE
        except WebsocketClosed:
            pass  # the other side has left; `run` learns of it too
        except EngineError as error:
            status, last = _told(error)
        except Exception as error:  # a bug: the socket stays open, and only a message can say it
            logger.error("%s failed on its socket", self._request.ctx.request_id, exc_info=error)
            status, last = _told(error)
        finally:
            self._answering = False  # before the last message: the next request may follow it at once
            elapsed = (time.perf_counter() - asked_at) * 1000
            log_access(self._request.ctx.request_id, "WEBSOCKET", self._request.path, status, elapsed)
        if last:
            with contextlib.suppress(WebsocketClosed):
                await self._send(last)

    async def _stream(self, asked: ChatRequest, *, with_usage: bool) -> Work:
        engine = self._request.app.ctx.engine
        async with contextlib.aclosing(engine.chat(asked)) as events:
            started = await anext(events)
            assert isinstance(started, ChatStarted)
            account = Account("chat", started)
            chunks = Chunks(ChatAnswer.by(engine.model(started.model)), with_usage=with_usage)
            for chunk in chunks.opening():
                await self._send(chunk)
            async for event in events:
                account.see(event)
                for chunk in chunks.of(event):
                    await self._send(chunk)
        assert account.work is not None
        return account.work

    async def _send(self, value: object) -> None:
        await self._socket.send(orjson.dumps(value).decode())


def _told(error: Exception) -> tuple[int, JsonObject]:
    """The status that HTTP would have for it, and the message."""
    failure = describe(error)
    return failure.status, failure.body()


def _is_control(message: str | bytes) -> bool:
    """A request has no type."""
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and "type" in value
