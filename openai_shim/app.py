"""The gateway's HTTP application: its routes, and what happens around each."""

import asyncio
import contextlib
import logging
from typing import cast

from sanic import HTTPResponse
from sanic.config import Config
from sanic.exceptions import NotFound, PayloadTooLarge, RequestCancelled
from sanic.http import Http
from sanic.response import BaseHTTPResponse
from sanic.signals import Event

from openai_shim.chat.route import chat_routes
from openai_shim.completions.route import completion_routes
from openai_shim.embeddings.route import embedding_routes
from openai_shim.http.context import App, GatewayContext, Request, elapsed_ms, finish_headers
from openai_shim.http.errors import describe
from openai_shim.http.guard import LIVENESS, Preflight, admit
from openai_shim.http.log import CLIENT_CLOSED_REQUEST, log_access
from openai_shim.http.nowhere import nothing_at
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Route, add_route
from openai_shim.models.route import model_routes
from openai_shim.ops.health import health_routes
from openai_shim.ops.internal import internal_routes
from openai_shim.ops.metrics import Metrics, metrics_routes
from openai_shim.ops.openapi import openapi_routes
from openai_shim.responses.route import response_routes
from openai_shim.tokens.route import token_routes

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 * 2**20
MAX_DISCARDED_BYTES = 64 * 2**20
DISCARD_SECONDS = 10.0
HEADER_SECONDS = 15
RESPONSE_SECONDS = 3600
"""Between two writes of a reply. A whole chat answer may take this long on a slow machine with a queue."""


def all_routes(metrics: Metrics) -> tuple[Route, ...]:
    routes = (
        *embedding_routes(),
        *chat_routes(metrics.record_account),
        *completion_routes(),
        *response_routes(),
        *model_routes(),
        *token_routes(),
        *health_routes(),
        *metrics_routes(metrics),
        *internal_routes(),
    )
    return (*routes, *openapi_routes(routes))


def create_app(context: GatewayContext) -> App:
    metrics = Metrics(context.engine)

    async def record(request: Request, response: BaseHTTPResponse) -> None:
        status = _status(request, response)
        metrics.record(request, status)
        if request.path != LIVENESS:  # asked every few seconds by whoever watches the gateway
            request_id, elapsed = request.ctx.request_id, elapsed_ms(request.ctx)
            log_access(request_id, request.method, request.path, status, elapsed, request.ctx.cut_off_after)

    app = App("npu-gateway", config=_config(), ctx=context, configure_logging=False)
    app.request_class = Request
    for route in all_routes(metrics):
        add_route(app, route)
    app.add_signal(_admit, Event.HTTP_ROUTING_BEFORE)
    app.add_signal(_listen_on, Event.HTTP_HANDLER_BEFORE)
    app.add_signal(record, Event.HTTP_LIFECYCLE_RESPONSE)
    app.register_middleware(finish_headers, "response")
    app.exception(Exception)(_failed)
    app.exception(Preflight)(_allowed)
    app.error_handler.add(RequestCancelled, _left)
    return app


def _status(request: Request, response: BaseHTTPResponse) -> int:
    """A stream that was cut off has sent another one."""
    return response.status if request.ctx.cut_off_after is None else CLIENT_CLOSED_REQUEST


def _config() -> Config:
    # No prefix: SANIC_* variables of the environment must not change what is documented here.
    config = Config(env_prefix=None)
    config.REQUEST_MAX_SIZE = config.WEBSOCKET_MAX_SIZE = MAX_BODY_BYTES
    config.REQUEST_TIMEOUT = HEADER_SECONDS
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
    if isinstance(error, NotFound):
        error = nothing_at(request)
    failure = describe(error, request.ctx.wire_names)
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
