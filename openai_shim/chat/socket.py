"""Chat over a WebSocket: the requests and the chunks of /v1/chat/completions, each as one message.

    -> {"messages": [...]}      <- {"object": "chat.completion.chunk", ...}, ..., {"type": "done"}
    -> {"type": "cancel"}       <- {"type": "cancelled"}, if an answer was being written

One answer at a time, any number one after the other. What goes wrong is {"error": {...}}, as in HTTP, in
place of "done", and the connection stays open. A gateway that ends finishes the answer, takes no more
requests, and closes with the code 1001.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict

import orjson
from pydantic import ValidationError
from sanic import Websocket
from sanic.exceptions import WebsocketClosed
from sanic.models.handler_types import RouteHandler

from engine.errors import BadInput, EngineError
from engine.types import ChatRequest
from openai_shim.chat.reply import ChatChunks
from openai_shim.chat.request import ChatCompletionRequest
from openai_shim.generation.accounting import StreamAccounting
from openai_shim.generation.choices import answering
from openai_shim.http.context import Request, RequestAccount
from openai_shim.http.errors import Error, UnsupportedParameter, describe
from openai_shim.http.guard import refuse_if_closing
from openai_shim.http.log import CLIENT_CLOSED_REQUEST, log_access
from openai_shim.http.parsing import RequestModel, read

logger = logging.getLogger(__name__)

RecordAccount = Callable[[RequestAccount, float, float], None]
"""Of an answer: when it ended and when it had been asked for, by time.perf_counter."""


class Ended(TypedDict):
    type: Literal["done", "cancelled"]


DONE: Ended = {"type": "done"}
CANCELLED: Ended = {"type": "cancelled"}
GOING_AWAY = 1001
"""RFC 6455, section 7.4.1."""


class Control(RequestModel):
    type: Literal["cancel"]


def chat_stream(record: RecordAccount) -> RouteHandler:
    async def talk(request: Request, socket: Websocket) -> None:
        await Talk(request, socket, record).run()

    return talk


class Talk:
    """One connection."""

    def __init__(self, request: Request, socket: Websocket, record: RecordAccount) -> None:
        self._request = request
        self._socket = socket
        self._record = record
        self._answer: asyncio.Task[None] | None = None
        self._answering = False
        self._cancelled = False
        """By the other side, which is told so; not by its leaving."""
        self._pieces = 0
        """Of the answer's text, sent."""

    async def run(self) -> None:
        """Until the connection is closed, by whomever; Sanic then raises CancelledError."""
        leaving = asyncio.create_task(self._leave())
        try:
            while (message := await self._socket.recv()) is not None:
                await self._take(message)
        finally:
            leaving.cancel()
            await self._end_answer()

    async def _leave(self) -> None:
        await self._request.app.ctx.closing.wait()
        if self._answer:
            await asyncio.wait({self._answer})
        await self._socket.close(GOING_AWAY)

    async def _take(self, message: str | bytes) -> None:
        try:
            if _is_control(message):
                read(Control, message, strict=True)
                await self._cancel()
                return
            wanted = self._wanted(message)
            asked = wanted.to_engine()
        except (ValidationError, EngineError) as error:
            await self._send(describe(error).body())
            return
        self._answering, self._cancelled = True, False
        self._answer = asyncio.create_task(self._converse(wanted, asked))

    async def _cancel(self) -> None:
        if self._answering:
            self._cancelled = True
            await self._end_answer()

    def _wanted(self, message: str | bytes) -> ChatCompletionRequest:
        """Raises ValidationError, BadInput, Unavailable."""
        context = self._request.app.ctx
        if self._answering:
            raise BadInput("An answer is being written. Wait for its end, or cancel it.")
        refuse_if_closing(context)
        wanted, _ = read(ChatCompletionRequest, message, strict=context.settings.strict)
        if wanted.stream is False:
            raise UnsupportedParameter("A socket streams. Leave stream out.", param="stream")
        return wanted

    async def _end_answer(self) -> None:
        if self._answer:
            self._answer.cancel()
            await asyncio.wait({self._answer})

    async def _converse(self, wanted: ChatCompletionRequest, asked: Sequence[ChatRequest]) -> None:
        asked_at = time.perf_counter()
        status = CLIENT_CLOSED_REQUEST
        last: Ended | Error | None = None
        try:
            account = await self._stream(wanted, asked)
            self._record(account, time.perf_counter(), asked_at)
            status, last = 200, DONE
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            last = CANCELLED
        except WebsocketClosed:
            pass  # the other side has left; `run` learns of it too
        except EngineError as error:
            status, last = _told(error)
        except Exception as error:  # a bug: the socket stays open, and only a message can say it
            logger.error("%s failed on its socket", self._request.ctx.request_id, exc_info=error)
            status, last = _told(error)
        finally:
            self._answering = False  # before the last message: the next request may follow it at once
            self._log(status, (time.perf_counter() - asked_at) * 1000)
        if last:
            with contextlib.suppress(WebsocketClosed):
                await self._send(last)

    async def _stream(self, wanted: ChatCompletionRequest, asked: Sequence[ChatRequest]) -> RequestAccount:
        self._pieces = 0
        async with answering(self._request.app.ctx.engine, asked) as (started, events):
            accounting, chunks = StreamAccounting("chat", started, len(asked)), ChatChunks(wanted, started)
            for chunk in chunks.opening():
                await self._send(chunk)
            async for event in events:
                assert event is not None  # no pings were asked for: WebSockets have their own
                accounting.see(event)
                self._pieces = accounting.pieces
                for chunk in chunks.of(*event):
                    await self._send(chunk)
        assert accounting.account is not None
        return accounting.account

    async def _send(self, value: object) -> None:
        await self._socket.send(orjson.dumps(value).decode())

    def _log(self, status: int, milliseconds: float) -> None:
        request_id, path = self._request.ctx.request_id, self._request.path
        cut_off_after = self._pieces if status == CLIENT_CLOSED_REQUEST else None
        log_access(request_id, "WEBSOCKET", path, status, milliseconds, cut_off_after)


def _told(error: Exception) -> tuple[int, Error]:
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
