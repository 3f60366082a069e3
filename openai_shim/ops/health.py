"""Routes for people and programs that run the gateway: is it up, can it work, what is it doing, end it."""

from prometheus_client import CONTENT_TYPE_LATEST
from sanic import Blueprint, HTTPResponse

from engine.errors import ModelNotReady
from engine.types import ModelStatus
from openai_shim.embeddings.reply import json_reply
from openai_shim.http.context import Request
from openai_shim.http.paths import public
from openai_shim.ops.metrics import Metrics
from openai_shim.ops.openapi import document


def ops_routes(metrics: Metrics) -> Blueprint:
    async def scrape(request: Request) -> HTTPResponse:
        return HTTPResponse(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    routes = Blueprint("ops")
    routes.add_route(health, "/health", methods=["GET"])
    routes.add_route(healthz, "/healthz", methods=["GET"])
    routes.add_route(readyz, "/readyz", methods=["GET"])
    routes.add_route(scrape, "/metrics", methods=["GET"])
    routes.add_route(openapi, "/openapi.json", methods=["GET"])
    return routes


def internal_routes() -> Blueprint:
    """For this product's own processes; not an API for others."""
    routes = Blueprint("internal", url_prefix="/internal")
    routes.add_route(identity, "/identity", methods=["GET"])
    routes.add_route(shutdown, "/shutdown", methods=["POST"])
    return routes


async def health(request: Request) -> HTTPResponse:
    return json_reply(public(request.app.ctx.engine.health()))


async def healthz(request: Request) -> HTTPResponse:
    """Says only that the event loop turns; open to everyone, so nothing more."""
    return json_reply({"status": "ok"})


async def readyz(request: Request) -> HTTPResponse:
    """200 once texts can be embedded; chat models take longer to load, and their state is in the reply."""
    engine = request.app.ctx.engine
    embedder = engine.model(engine.default_model("embedding"))
    if embedder.state != "ready":
        raise ModelNotReady(_why(embedder), retry_after_seconds=1)
    return json_reply({"status": "ready", "models": {model.id: model.state for model in engine.models()}})


async def openapi(request: Request) -> HTTPResponse:
    return json_reply(document())


def _why(model: ModelStatus) -> str:
    return f"{model.id} is {model.state}{f': {model.detail}' if model.detail else ''}."


async def identity(request: Request) -> HTTPResponse:
    endpoint = request.app.ctx.endpoint
    assert endpoint is not None  # the guard lets nobody through without its token
    return json_reply({"instance": endpoint.instance, "version": endpoint.version, "api": endpoint.api})


async def shutdown(request: Request) -> HTTPResponse:
    request.app.ctx.closing.set()
    return json_reply({"status": "closing"}, status=202)
