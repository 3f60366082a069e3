"""Which models there are, and which are in memory for who wants to decide that. Not OpenAI's, the latter."""

from sanic import HTTPResponse

from engine.types import ModelState, ModelStatus
from openai_shim.http.context import Request
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Description, Route
from openai_shim.models.reply import Model, ModelList, model_card, model_list


def model_routes() -> tuple[Route, ...]:
    loaded = Description("Load a model into memory", Model, pending="It starts again after a crash")
    unloaded = Description(
        "Give a model's memory back", Model, pending="It happens when the last running request has ended"
    )
    return (
        Route("GET", "/v1/models", list_models, Description("List the models", ModelList)),
        Route("GET", "/v1/models/{model_id}", get_model, Description("Show a model", Model)),
        Route("POST", "/v1/models/{model_id}/load", load, loaded),
        Route("POST", "/v1/models/{model_id}/unload", unload, unloaded),
    )


async def list_models(request: Request) -> HTTPResponse:
    return json_reply(model_list(request.app.ctx.engine.models()))


async def get_model(request: Request, model_id: str) -> HTTPResponse:
    if not model_id:  # /v1/models/
        return await list_models(request)
    return json_reply(model_card(request.app.ctx.engine.model(model_id)))


async def load(request: Request, model_id: str) -> HTTPResponse:
    """200 when the model is in memory; 202 when its worker has just crashed and starts again."""
    return _reached("ready", await request.app.ctx.engine.load(model_id))


async def unload(request: Request, model_id: str) -> HTTPResponse:
    """200 when its memory is given back; 202 when requests still run, the last of which unloads it."""
    return _reached("unloaded", await request.app.ctx.engine.unload(model_id))


def _reached(wanted: ModelState, model: ModelStatus) -> HTTPResponse:
    return json_reply(model_card(model), 200 if model.state == wanted else 202)
