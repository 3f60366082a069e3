"""The lines of `jsonrpc` as bodies of HTTP requests: what is no message is refused in our own words."""

from http import HTTPStatus

from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE
from mcp.types import INVALID_REQUEST
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_server.jsonrpc import LineRefused, checked, decoded


class MessagesOnly:
    """Lets requests through whose body is one message, written as the SDK reads it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        parts = await _received(receive)
        try:
            parts = _checked(parts)
        except LineRefused as refused:
            await JSONResponse(refused.replies[0], HTTPStatus.BAD_REQUEST)(scope, receive, send)
            return

        async def replay() -> Message:
            return parts.pop(0) if parts else await receive()

        await self._app(scope, replay, send)


async def _received(receive: Receive) -> list[Message]:
    """The parts of a body to its end, to the client's leaving, or to where the SDK refuses its length."""
    parts, size = [await receive()], 0
    while parts[-1].get("more_body"):
        size += len(parts[-1].get("body", b""))
        if size > DEFAULT_MAX_REQUEST_BODY_SIZE:
            break
        parts.append(await receive())
    return parts


def _checked(parts: list[Message]) -> list[Message]:
    if parts[-1].get("more_body") or any(part["type"] != "http.request" for part in parts):
        return parts
    value = decoded(b"".join(part.get("body", b"") for part in parts))
    if isinstance(value, list):
        raise LineRefused(value, INVALID_REQUEST, "No batches over HTTP: send one message in a request.")
    message = checked(value)
    if message is None:
        return parts
    body = message.model_dump_json(by_alias=True, exclude_unset=True).encode()
    return [{"type": "http.request", "body": body, "more_body": False}]
