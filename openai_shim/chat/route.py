"""The OpenAI routes under /v1: parse, ask the engine, render."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence

from sanic import Blueprint, HTTPResponse

from engine.errors import BadInput
from engine.types import ChatRequest, Completion
from openai_shim.embeddings.reply import embedding_list, json_reply, model_card
from openai_shim.embeddings.request import EmbeddingRequest
from openai_shim.generation.request import ChatCompletionRequest, CompletionRequest
from openai_shim.generation.streaming import ChunkFrames, Chunks, stream
from openai_shim.http.context import Operation, Request, Work, say_devices
from openai_shim.http.parsing import parse
from openai_shim.responses.events import Reply, ResponseFrames
from openai_shim.responses.request import ResponseRequest
from openai_shim.tokens.inputs import prompts_as_texts, understood


def v1_routes() -> Blueprint:
    routes = Blueprint("v1", url_prefix="/v1")
    routes.add_route(list_models, "/models", methods=["GET"])
    routes.add_route(get_model, "/models/<model_id:path>", methods=["GET"])
    routes.add_route(embeddings, "/embeddings", methods=["POST"])
    routes.add_route(chat_completions, "/chat/completions", methods=["POST"])
    routes.add_route(completions, "/completions", methods=["POST"])
    routes.add_route(responses, "/responses", methods=["POST"])
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
    context = request.app.ctx
    asked = await understood(wanted.to_engine(context.settings.long_inputs), request)
    result = await context.engine.embed(asked)
    say_devices(request, *result.devices, emulated=result.npu_emulated)
    if result.truncated:
        request.ctx.headers["x-truncated-inputs"] = str(len(result.truncated))
    request.ctx.work = Work("embeddings", result.model, result.devices, sum(result.token_counts))
    return json_reply(embedding_list(result, as_base64=wanted.encoding_format == "base64"))


async def chat_completions(request: Request) -> HTTPResponse | None:
    wanted = parse(ChatCompletionRequest, request)
    return await _answered(request, wanted, wanted.to_engine())


async def completions(request: Request) -> HTTPResponse | None:
    wanted = parse(CompletionRequest, request)
    prompts = await prompts_as_texts(wanted.prompt, wanted.model, request)
    with _asked_in("prompt"):
        return await _answered(request, wanted, wanted.to_engine(prompts))


async def responses(request: Request) -> HTTPResponse | None:
    wanted = parse(ResponseRequest, request)
    with _asked_in("input"):
        return await _responded(request, wanted, wanted.to_engine())


async def _responded(request: Request, wanted: ResponseRequest, asked: ChatRequest) -> HTTPResponse | None:
    if wanted.stream:
        await stream(request, [asked], lambda model: ResponseFrames(Reply(wanted, model)), "chat")
        return None
    engine = request.app.ctx.engine
    completion = await engine.complete(asked)
    _account(request, [completion], "chat")
    return json_reply(Reply(wanted, engine.model(completion.model)).whole(completion))


async def _answered(
    request: Request, wanted: ChatCompletionRequest | CompletionRequest, asked: Sequence[ChatRequest]
) -> HTTPResponse | None:
    if wanted.stream:
        with_usage = wanted.wants_usage_chunk
        await stream(
            request,
            asked,
            lambda model: ChunkFrames(Chunks(wanted.answer_by(model), with_usage=with_usage)),
            wanted.operation,
        )
        return None
    engine = request.app.ctx.engine
    completions = await _all([engine.complete(each) for each in asked])
    _account(request, completions, wanted.operation)
    return json_reply(wanted.answer_by(engine.model(completions[0].model)).whole(completions))


def _account(request: Request, completions: Sequence[Completion], operation: Operation) -> None:
    devices = tuple(dict.fromkeys(completion.device for completion in completions))
    say_devices(request, *devices)
    request.ctx.work = Work(
        operation,
        completions[0].model,
        devices,
        input_tokens=sum(completion.usage.prompt_tokens for completion in completions),
        output_tokens=sum(completion.usage.completion_tokens for completion in completions),
        queue_seconds=tuple(completion.queue_seconds for completion in completions),
    )


@contextlib.contextmanager
def _asked_in(field: str) -> Iterator[None]:
    """The engine knows messages only; who asked in another way is told the name of their own field."""
    try:
        yield
    except BadInput as error:
        if error.param == "messages":
            error.param = field
        raise


async def _all(answers: Sequence[Coroutine[None, None, Completion]]) -> list[Completion]:
    """Side by side; if one fails or the caller leaves, the others end."""
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
