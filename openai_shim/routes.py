"""The OpenAI routes under /v1: parse, ask the engine, render."""

from sanic import Blueprint, HTTPResponse

from openai_shim.answers import ChatAnswer, TextAnswer
from openai_shim.context import Request, say_devices
from openai_shim.parsing import parse
from openai_shim.replies import embedding_list, json_reply, model_card
from openai_shim.schemas import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from openai_shim.streaming import stream


def v1_routes() -> Blueprint:
    routes = Blueprint("v1", url_prefix="/v1")
    routes.add_route(list_models, "/models", methods=["GET"])
    routes.add_route(get_model, "/models/<model_id:path>", methods=["GET"])
    routes.add_route(embeddings, "/embeddings", methods=["POST"])
    routes.add_route(chat_completions, "/chat/completions", methods=["POST"])
    routes.add_route(completions, "/completions", methods=["POST"])
    return routes


async def list_models(request: Request) -> HTTPResponse:
    models = request.app.ctx.engine.models()
    return json_reply({"object": "list", "data": [model_card(model) for model in models]})


async def get_model(request: Request, model_id: str) -> HTTPResponse:
    if not model_id:  # /v1/models/
        return await list_models(request)
    return json_reply(model_card(request.app.ctx.engine.model(model_id)))


async def embeddings(request: Request) -> HTTPResponse:
    wanted = parse(EmbeddingRequest, request)
    result = await request.app.ctx.engine.embed(wanted.to_engine())
    say_devices(request, *result.devices, emulated=result.npu_emulated)
    return json_reply(embedding_list(result, as_base64=wanted.encoding_format == "base64"))


async def chat_completions(request: Request) -> HTTPResponse | None:
    wanted = parse(ChatCompletionRequest, request)
    if wanted.stream:
        await stream(request, wanted.to_engine(), ChatAnswer, with_usage=wanted.wants_usage_chunk)
        return None
    engine = request.app.ctx.engine
    completion = await engine.complete(wanted.to_engine())
    say_devices(request, completion.device)
    return json_reply(ChatAnswer.by(engine.model(completion.model)).whole([completion]))


async def completions(request: Request) -> HTTPResponse | None:
    wanted = parse(CompletionRequest, request)
    asked = wanted.to_engine()
    if wanted.stream:
        await stream(request, asked[0], TextAnswer, with_usage=wanted.wants_usage_chunk)
        return None
    engine = request.app.ctx.engine
    answers = [await engine.complete(each) for each in asked]
    say_devices(request, *dict.fromkeys(answer.device for answer in answers))
    return json_reply(TextAnswer.by(engine.model(answers[0].model)).whole(answers))
