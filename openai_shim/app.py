"""The gateway's HTTP application and the server that runs it."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from sanic import HTTPResponse
from sanic.application.state import ApplicationServerInfo
from sanic.config import Config
from sanic.exceptions import PayloadTooLarge, RequestCancelled
from sanic.http import Http
from sanic.http.constants import HTTP
from sanic.response import BaseHTTPResponse
from sanic.signals import Event

from openai_shim.chat.route import v1_routes
from openai_shim.chat.socket import socket_routes
from openai_shim.embeddings.reply import json_reply
from openai_shim.http.context import App, AppContext, Request, elapsed_ms, finish_headers
from openai_shim.http.errors import describe
from openai_shim.http.guard import LIVENESS, Preflight, admit
from openai_shim.http.log import CLIENT_CLOSED_REQUEST, log_access
from openai_shim.models.route import model_routes
from openai_shim.ops.health import internal_routes, ops_routes
from openai_shim.ops.metrics import Metrics
from openai_shim.tokens.route import token_routes

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 * 2**20
MAX_DISCARDED_BYTES = 64 * 2**20
DISCARD_SECONDS = 10.0
RESPONSE_SECONDS = 3600
"""Between two writes of a reply. A whole chat answer may take this long on a slow machine with a queue."""
DRAIN_SECONDS = 15.0
"""What running requests get to finish when the gateway ends; `npu-gateway stop` waits for twice that."""


def create_app(context: AppContext) -> App:
    metrics = Metrics(context.engine)

    async def account(request: Request, response: BaseHTTPResponse) -> None:
        cut_off_after = request.ctx.cut_off_after
        status = response.status if cut_off_after is None else CLIENT_CLOSED_REQUEST
        metrics.record(request, status)
        if request.path != LIVENESS:  # asked every few seconds by whoever watches the gateway
            request_id, elapsed = request.ctx.request_id, elapsed_ms(request.ctx)
            log_access(request_id, request.method, request.path, status, elapsed, cut_off_after)

    app = App("npu-gateway", config=_config(), ctx=context, configure_logging=False)
    app.request_class = Request
    app.blueprint([v1_routes(), socket_routes(metrics.record_work), model_routes(), token_routes()])
    app.blueprint([ops_routes(metrics), internal_routes()])
    app.add_signal(_admit, Event.HTTP_ROUTING_BEFORE)
    app.add_signal(_listen_on, Event.HTTP_HANDLER_BEFORE)
    app.add_signal(account, Event.HTTP_LIFECYCLE_RESPONSE)
    app.register_middleware(finish_headers, "response")
    app.exception(Exception)(_failed)
    app.exception(Preflight)(_allowed)
    app.error_handler.add(RequestCancelled, _left)
    return app


@contextlib.asynccontextmanager
async def serving(
    app: App, listener: socket.socket, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[None]:
    """Answer what arrives on `listener` for the length of the block, then let running requests finish.

    Until they have, new ones are told to come back later (by the guard), which says more than a closed port.
    """
    # As Sanic's own `run` does; without it, every reply has an empty alt-svc header.
    app.state.server_info.append(ApplicationServerInfo({"version": HTTP.VERSION_1}))
    # Connections may wait in the backlog already: routes must be complete before the first is accepted.
    server: Any = await app.create_server(
        sock=listener, ssl=tls, asyncio_server_kwargs={"start_serving": False}
    )
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    try:
        yield
    finally:
        app.ctx.closing.set()
        await _drain(server)
        await server.before_stop()
        await server.after_stop()


async def _drain(server: Any) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await _until(lambda: not any(connection.http for connection in server.connections))
    server.close()  # what is still connected is idle, in the middle of a request, or out of time
    unfinished = [each for each in tuple(server.connections) if not each.close_if_idle()]
    if unfinished:
        logger.warning("%d connections are cut off in a request or its answer", len(unfinished))
    for connection in unfinished:
        connection.abort()  # cancels its handler
    await _until(lambda: not server.connections)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - Sanic tells nobody when a connection becomes idle or ends
        await asyncio.sleep(0.02)


def _config() -> Config:
    # No prefix: SANIC_* variables of the environment must not change what is documented here.
    config = Config(env_prefix=None)
    config.REQUEST_MAX_SIZE = config.WEBSOCKET_MAX_SIZE = MAX_BODY_BYTES
    config.RESPONSE_TIMEOUT = RESPONSE_SECONDS
    config.AUTO_EXTEND = False
    config.MOTD = False
    return config


async def _admit(request: Request) -> None:
    admit(request)


async def _listen_on(request: Request) -> None:
    """Sanic pauses reading while 64 KiB of a body wait, and never resumes after the last: it would not notice
    that the caller of a large request leaves.
    """
    cast(asyncio.ReadTransport, request.transport).resume_reading()


async def _allowed(request: Request, preflight: Preflight) -> HTTPResponse:
    return HTTPResponse(status=204, headers=dict(preflight.headers))


async def _left(request: Request, cancelled: RequestCancelled) -> HTTPResponse:
    """The caller is gone; the log and the metrics read this, and would else find one more 500."""
    return HTTPResponse(status=CLIENT_CLOSED_REQUEST)


async def _failed(request: Request, error: Exception) -> HTTPResponse:
    failure = describe(error)
    if failure.status >= 500 and failure.code == "internal_error":
        logger.error("%s failed", request.ctx.request_id, exc_info=error)
    if isinstance(error, PayloadTooLarge):
        await _discard_body(request)
    return json_reply(failure.body(), failure.status, failure.headers)


async def _discard_body(request: Request) -> None:
    """Closing a connection with unread bytes resets it, and its caller may never read why it was refused."""
    stream = request.stream
    assert isinstance(stream, Http)
    stream.request_max_size = MAX_DISCARDED_BYTES
    with contextlib.suppress(PayloadTooLarge, TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            async for _ in stream:
                pass
