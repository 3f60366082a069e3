"""The same tools over HTTP, for clients that cannot start a program: streamable HTTP, on loopback only."""

import hmac
import socket
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.daemon.endpoint import read
from engine.daemon.listen import listen, taken
from engine.daemon.loop import run_server
from engine.remote.client import Locate
from engine.settings import Home, Settings
from mcp_server.app import App
from mcp_server.posts import MessagesOnly
from mcp_server.server import create_server

HOST = "127.0.0.1"
PATH = "/mcp"
CLOSING_SECONDS = 3
"""Clients keep a stream open for messages from us, for ever; the end does not wait for them."""


def serve_http(settings: Settings, locate: Locate, port: int, announce: Callable[[str], None]) -> None:
    """Serve the tools until Ctrl-C; announce gets the address. Raises PortTaken and BadInput."""
    run(create_app(create_server(settings.home, locate), settings), port, announce)


def create_app(server: MCPServer[App], settings: Settings) -> ASGIApp:
    """A server behind the gateway's tokens; the SDK refuses foreign Host and Origin headers.

    Raises BadInput when the keys cannot be read.
    """
    app = server.streamable_http_app(host=HOST, streamable_http_path=PATH)
    return TokenRequired(MessagesOnly(app), partial(_tokens, settings.keys(), settings.home))


def run(app: ASGIApp, port: int, announce: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; announce gets the address. port 0: a free one. Raises PortTaken."""
    # httptools, which uvicorn takes when it is there, leaves white space at the end of header values.
    config = uvicorn.Config(app, http="h11", log_config=None, timeout_graceful_shutdown=CLOSING_SECONDS)
    sockets = _listen(port)  # uvicorn closes them
    announce(f"http://{HOST}:{sockets[0].getsockname()[1]}{PATH}")
    run_server(uvicorn.Server(config).serve(sockets=list(sockets)))


class TokenRequired:
    """Lets requests through that bring one of the tokens which are good at that moment."""

    def __init__(self, app: ASGIApp, tokens: Callable[[], Iterable[str]]) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_pass(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        refusal = PlainTextResponse(
            "Send the header `Authorization: Bearer TOKEN`; `npu-gateway token` prints the token.",
            HTTPStatus.UNAUTHORIZED,
            {"www-authenticate": "Bearer"},
        )
        await refusal(scope, receive, send)

    def _may_pass(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Every token is compared, in constant time: neither which one matched nor how nearly shows.
        matches = [hmac.compare_digest(given.encode(), token.encode()) for token in self._tokens()]
        return scheme.lower() == "bearer" and any(matches)


def _tokens(keys: tuple[str, ...], home: Home) -> tuple[str, ...]:
    """What the gateway's own routes accept: the configured keys, and the running gateway's token."""
    endpoint = read(home)
    return (*keys, endpoint.token) if endpoint else keys


def _listen(port: int) -> tuple[socket.socket, ...]:
    try:
        return listen(HOST, port)
    except OSError as error:
        raise taken(HOST, port, error, "npu-gateway mcp --http") from error
