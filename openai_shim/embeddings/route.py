"""Texts in, vectors out."""

from sanic import HTTPResponse

from openai_shim.embeddings.reply import EmbeddingList, embedding_list
from openai_shim.embeddings.request import EmbeddingRequest
from openai_shim.http.context import Request, RequestAccount, say_devices
from openai_shim.http.parsing import parse
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Description, Route
from openai_shim.tokens.inputs import understood


def embedding_routes() -> tuple[Route, ...]:
    described = Description("Turn texts into vectors", EmbeddingList, EmbeddingRequest)
    return (Route("POST", "/v1/embeddings", embeddings, described),)


async def embeddings(request: Request) -> HTTPResponse:
    wanted = parse(EmbeddingRequest, request)
    context = request.app.ctx
    asked = await understood(wanted.to_engine(context.settings.long_inputs), request)
    result = await context.engine.embed(asked)
    say_devices(request, *result.devices, emulated=result.npu_emulated)
    if result.truncated:
        request.ctx.headers["x-truncated-inputs"] = str(len(result.truncated))
    request.ctx.account = RequestAccount("embeddings", result.model, result.devices, sum(result.token_counts))
    return json_reply(embedding_list(result, as_base64=wanted.encoding_format == "base64"))
