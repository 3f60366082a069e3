"""Prompts in, their continuations out, whole or streamed."""

from sanic import HTTPResponse

from openai_shim.completions.reply import TextChunks, TextCompletion, text_completion
from openai_shim.completions.request import CompletionRequest
from openai_shim.generation.chunks import ChunkFrames
from openai_shim.generation.streaming import stream
from openai_shim.generation.whole import complete
from openai_shim.http.context import Request
from openai_shim.http.parsing import parse
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Description, Route
from openai_shim.tokens.inputs import prompts_as_texts


def completion_routes() -> tuple[Route, ...]:
    described = Description("Answer prompts", TextCompletion, CompletionRequest, event=TextCompletion)
    return (Route("POST", "/v1/completions", completions, described),)


async def completions(request: Request) -> HTTPResponse | None:
    wanted = parse(CompletionRequest, request)
    prompts = await prompts_as_texts(wanted.prompt, wanted.model, request)
    asked = wanted.to_engine(prompts)
    if wanted.stream:
        await stream(
            request, asked, "text_completion", lambda started: ChunkFrames(TextChunks(wanted, started))
        )
        return None
    answers = await complete(request, asked, "text_completion")
    return json_reply(text_completion(wanted, answers))
