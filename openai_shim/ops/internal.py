"""For this product's own processes; not an API for others."""

from sanic import HTTPResponse

from openai_shim.http.context import Request
from openai_shim.http.guard import INTERNAL
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Route


def internal_routes() -> tuple[Route, ...]:
    return (
        Route("GET", f"{INTERNAL}identity", identity),
        Route("POST", f"{INTERNAL}shutdown", shutdown),
    )


async def identity(request: Request) -> HTTPResponse:
    endpoint = request.app.ctx.endpoint
    assert endpoint is not None  # the guard lets nobody through without its token
    return json_reply({"instance": endpoint.instance, "version": endpoint.version, "api": endpoint.api})


async def shutdown(request: Request) -> HTTPResponse:
    request.app.ctx.closing.set()
    return json_reply({"status": "closing"}, status=202)
