"""Which models are in memory, for people and programs that want to decide that themselves. Not OpenAI's."""

from sanic import Blueprint, HTTPResponse

from engine.types import ModelState, ModelStatus
from openai_shim.embeddings.reply import json_reply, model_card
from openai_shim.http.context import Request


def model_routes() -> Blueprint:
    routes = Blueprint("models", url_prefix="/v1/models")
    routes.add_route(load, "/<model_id:path>/load", methods=["POST"])
    routes.add_route(unload, "/<model_id:path>/unload", methods=["POST"])
    return routes


async def load(request: Request, model_id: str) -> HTTPResponse:
    """200 when the model is in memory; 202 when its worker has just crashed and starts again."""
    return _reached("ready", await request.app.ctx.engine.load(model_id))


async def unload(request: Request, model_id: str) -> HTTPResponse:
    """200 when its memory is given back; 202 when requests still run, the last of which unloads it."""
    return _reached("unloaded", await request.app.ctx.engine.unload(model_id))


def _reached(wanted: ModelState, model: ModelStatus) -> HTTPResponse:
    return json_reply(model_card(model), 200 if model.state == wanted else 202)
