"""/tokenize and /detokenize, as users of llama.cpp's and vLLM's servers know them."""

import asyncio

from sanic import HTTPResponse

from openai_shim.http.context import Request
from openai_shim.http.parsing import parse
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Description, Route
from openai_shim.tokens.reply import Text, Tokens, text_reply, tokens_reply
from openai_shim.tokens.request import DetokenizeRequest, TokenizeRequest


def token_routes() -> tuple[Route, ...]:
    tokenized = Description("Turn a text into token ids", Tokens, TokenizeRequest)
    detokenized = Description("Turn token ids into text", Text, DetokenizeRequest)
    return (
        Route("POST", "/tokenize", tokenize, tokenized),
        Route("POST", "/detokenize", detokenize, detokenized),
    )


async def tokenize(request: Request) -> HTTPResponse:
    wanted = parse(TokenizeRequest, request)
    codec = await request.app.ctx.engine.codec(wanted.model)
    # In a thread: eight megabytes of text take seconds.
    tokens = await asyncio.to_thread(codec.tokenize, wanted.content, add_special=bool(wanted.add_special))
    return json_reply(tokens_reply(tokens))


async def detokenize(request: Request) -> HTTPResponse:
    wanted = parse(DetokenizeRequest, request)
    codec = await request.app.ctx.engine.codec(wanted.model)
    return json_reply(text_reply(await asyncio.to_thread(codec.detokenize, wanted.tokens)))
