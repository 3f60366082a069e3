"""A conversation in, the next message out: whole, streamed, or over a WebSocket."""

from sanic import HTTPResponse

from openai_shim.chat.reply import ChatChunks, ChatCompletion, ChatCompletionChunk, chat_completion
from openai_shim.chat.request import ChatCompletionRequest
from openai_shim.chat.socket import RecordAccount, chat_stream
from openai_shim.generation.chunks import ChunkFrames
from openai_shim.generation.streaming import stream
from openai_shim.generation.whole import complete
from openai_shim.http.context import Request
from openai_shim.http.parsing import parse
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Description, Route


def chat_routes(record: RecordAccount) -> tuple[Route, ...]:
    described = Description(
        "Answer a conversation", ChatCompletion, ChatCompletionRequest, event=ChatCompletionChunk
    )
    return (
        Route("POST", "/v1/chat/completions", chat_completions, described),
        Route(
            "WEBSOCKET",
            "/v1/chat/stream",
            chat_stream(record),
            Description("Answer conversations over a WebSocket"),
        ),
    )


async def chat_completions(request: Request) -> HTTPResponse | None:
    wanted = parse(ChatCompletionRequest, request)
    asked = wanted.to_engine()
    if wanted.stream:
        await stream(request, asked, "chat", lambda started: ChunkFrames(ChatChunks(wanted, started)))
        return None
    return json_reply(chat_completion(wanted, await complete(request, asked, "chat")))
