"""A route: its handler, and beside it what the OpenAPI document says of it."""

import re
from dataclasses import dataclass
from functools import wraps
from typing import Literal
from urllib.parse import unquote

from sanic import HTTPResponse
from sanic.models.handler_types import RouteHandler

from openai_shim.http.context import App, Request
from openai_shim.http.parsing import RequestModel


@dataclass(frozen=True)
class Description:
    """For the document. summary: what a request is for.

    reply: the type of a 200's JSON; None of a WebSocket. body: the request's, if it has one.
    event: the type of an event's data, if the answer can be streamed. pending: what a 202 means.
    """

    summary: str
    reply: type[object] | None = None
    body: type[RequestModel] | None = None
    event: type[object] | None = None
    pending: str | None = None


@dataclass(frozen=True)
class Route:
    """path: as the document writes it; what stands for {name} goes to the handler and may have slashes.

    description: None keeps the route out of the document.
    """

    method: Literal["GET", "POST", "WEBSOCKET"]
    path: str
    handler: RouteHandler
    description: Description | None = None


def add_route(app: App, route: Route) -> None:
    if route.method == "WEBSOCKET":
        app.add_websocket_route(route.handler, _pattern(route.path))
    else:
        # HEAD wherever GET is: monitors and proxies ask so.
        methods = ["GET", "HEAD"] if route.method == "GET" else [route.method]
        app.add_route(_unquoting(route.handler), _pattern(route.path), methods=methods)


def _unquoting(handler: RouteHandler) -> RouteHandler:
    """Sanic's own does nothing for a pattern that takes slashes."""

    @wraps(handler)
    async def handle(request: Request, **names: str) -> HTTPResponse | None:
        return await handler(request, **{name: unquote(value) for name, value in names.items()})

    return handle


def _pattern(path: str) -> str:
    return re.sub(r"{(\w+)}", r"<\1:path>", path)
