"""/tokenize and /detokenize, as users of llama.cpp's and vLLM's servers know them."""

import asyncio
from typing import Annotated

from pydantic import AliasChoices, Field
from sanic import Blueprint, HTTPResponse

from openai_shim.embeddings.reply import json_reply
from openai_shim.http.context import Request
from openai_shim.http.parsing import parse
from openai_shim.http.wire import WireModel


class TokenizeRequest(WireModel):
    """`content` and `add_special` are llama.cpp's names, `prompt` and `add_special_tokens` vLLM's.

    model left out: the default chat model. What looks like a control token of a chat model stays text.
    """

    content: Annotated[str, Field(validation_alias=AliasChoices("content", "prompt"))]
    model: str | None = None
    add_special: Annotated[
        bool | None, Field(validation_alias=AliasChoices("add_special", "add_special_tokens"))
    ] = None


class DetokenizeRequest(WireModel):
    tokens: list[Annotated[int, Field(ge=0)]]
    model: str | None = None


def token_routes() -> Blueprint:
    routes = Blueprint("tokens")
    routes.add_route(tokenize, "/tokenize", methods=["POST"])
    routes.add_route(detokenize, "/detokenize", methods=["POST"])
    return routes


async def tokenize(request: Request) -> HTTPResponse:
    wanted = parse(TokenizeRequest, request)
    codec = await request.app.ctx.engine.codec(wanted.model)
    # In a thread: eight megabytes of text take seconds.
    tokens = await asyncio.to_thread(codec.tokenize, wanted.content, add_special=bool(wanted.add_special))
    return json_reply({"tokens": tokens, "count": len(tokens)})


async def detokenize(request: Request) -> HTTPResponse:
    wanted = parse(DetokenizeRequest, request)
    codec = await request.app.ctx.engine.codec(wanted.model)
    return json_reply({"content": await asyncio.to_thread(codec.detokenize, wanted.tokens)})
