"""One connection, where Sanic's own is too patient, too trusting or too modern for its client."""

import asyncio
import time
from asyncio import BaseTransport, Transport

import orjson
from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.server.protocols.websocket_protocol import WebSocketProtocol

from engine.errors import Unavailable
from openai_shim.http.errors import describe

CAPACITY = "MAX_CONNECTIONS"
"""In the app's configuration: how many connections the server has at once."""


class Exchange(Http):
    """A request and its answer."""

    async def http1_request_header(self) -> None:
        """Of who leaves, Sanic logs the request; in the middle of its headers there is none yet."""
        try:
            await super().http1_request_header()  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            self.create_empty_request()
            raise

    def create_empty_request(self) -> None:
        """Stands for a request that cannot be read: its address least of all, which may be what is wrong."""
        self.url = None
        super().create_empty_request()

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """HTTP/1.0 knows no chunks: what is streamed ends with the connection."""
        response = self.response
        if (
            self.request.version != "1.0"
            or end_stream
            or response.body
            or "content-length" in response.headers
        ):
            await super().http1_response_header(data, end_stream)
            return
        self.keep_alive = False
        response.headers["connection"] = "close"
        header = format_http1_response(response.status, response.processed_headers)
        self.stage = Stage.RESPONSE
        self.response_func = self._until_closed
        await self._send(header + data)

    async def _until_closed(self, data: bytes, end_stream: bool) -> None:
        if data:
            await self._send(data)
        if end_stream:
            self.stage = Stage.IDLE


class Connection(WebSocketProtocol):
    """When the server is full, a new one takes the place of the one that has asked for nothing longest."""

    HTTP_CLASS = Exchange

    def connection_made(self, transport: BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self._time = time.monotonic()
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        if len(self.connections) <= self.app.config[CAPACITY]:
            return
        waiting = [each for each in self.connections if each is not self and each.is_waiting]
        if waiting:
            longest = min(waiting, key=lambda each: each.waiting_since)
            self.connections.discard(longest)  # its end comes a moment later; another must not count on it
            longest.give_up()
        else:
            transport.write(_refusal())
            self.close()

    def data_received(self, data: bytes) -> None:
        """Sanic counts a request's time from its latest byte: one byte a minute would keep it for ever."""
        begun = self._time
        super().data_received(data)  # type: ignore[no-untyped-call]
        if self.http is not None and (self.http.stage is Stage.REQUEST or self.http.request_body):
            self._time = begun

    def give_up(self) -> None:
        """Without waiting for a peer that may not read what it asked for."""
        assert self.transport is not None
        self.transport.abort()

    @property
    def is_waiting(self) -> bool:
        """For a request, or for the rest of its headers."""
        return self.websocket is None and (
            self.http is None or self.http.stage in (Stage.IDLE, Stage.REQUEST)
        )

    @property
    def waiting_since(self) -> float:
        """By time.monotonic."""
        return self._time


def _refusal() -> bytes:
    failure = describe(Unavailable("Every connection of the gateway is in use.", retry_after_seconds=1))
    body = orjson.dumps(failure.body())
    headers = {
        **failure.headers,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    return format_http1_response(failure.status, encoded) + body
