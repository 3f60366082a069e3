"""Is the gateway up, can it work, what is it doing."""

from collections.abc import Sequence
from typing import Literal

from sanic import HTTPResponse
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.errors import ModelNotReady
from engine.types import Health, ModelState, ModelStatus
from openai_shim.http.context import Request
from openai_shim.http.guard import LIVENESS
from openai_shim.http.paths import public
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Description, Route


class Liveness(TypedDict):
    status: Literal["ok"]


class Readiness(TypedDict):
    status: Literal["ready"]
    models: dict[str, ModelState]


def health_routes() -> tuple[Route, ...]:
    return (
        Route("GET", "/health", health, Description("Models, devices, memory, queues", Health)),
        Route("GET", LIVENESS, healthz, Description("Is the gateway alive", Liveness)),
        Route("GET", "/readyz", readyz, Description("Can texts be embedded", Readiness)),
    )


async def health(request: Request) -> HTTPResponse:
    return json_reply(public(request.app.ctx.engine.health()))


async def healthz(request: Request) -> HTTPResponse:
    """Says only that the event loop turns; open to everyone, so nothing more."""
    alive: Liveness = {"status": "ok"}
    return json_reply(alive)


async def readyz(request: Request) -> HTTPResponse:
    """200 once texts can be embedded; chat models take longer to load, and their state is in the reply."""
    engine = request.app.ctx.engine
    embedder = engine.model(engine.default_model("embedding"))
    if embedder.state != "ready":
        raise ModelNotReady(_why(embedder), retry_after_seconds=1)
    return json_reply(_readiness(engine.models()))


def _readiness(models: Sequence[ModelStatus]) -> Readiness:
    return {"status": "ready", "models": {model.id: model.state for model in models}}


def _why(model: ModelStatus) -> str:
    return f"{model.id} is {model.state}{f': {model.detail}' if model.detail else ''}."
