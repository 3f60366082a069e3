"""A conversation in, a response out, whole or streamed."""

from sanic import HTTPResponse

from openai_shim.generation.streaming import stream
from openai_shim.generation.whole import complete
from openai_shim.http.context import Request
from openai_shim.http.parsing import parse
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Description, Route
from openai_shim.responses.events import ResponseEvent, ResponseFrames
from openai_shim.responses.reply import Response, ResponseWriter
from openai_shim.responses.request import ResponseRequest


def response_routes() -> tuple[Route, ...]:
    described = Description("Answer, statelessly", Response, ResponseRequest, event=ResponseEvent)
    return (Route("POST", "/v1/responses", responses, described),)


async def responses(request: Request) -> HTTPResponse | None:
    wanted = parse(ResponseRequest, request)
    asked = [wanted.to_engine()]
    if wanted.stream:
        await stream(
            request, asked, "chat", lambda started: ResponseFrames(ResponseWriter(wanted, started.model))
        )
        return None
    (answer,) = await complete(request, asked, "chat")
    return json_reply(ResponseWriter(wanted, answer.model).whole(answer))
