"""What one line of input says: a message for the server, or the error that its sender gets.

The SDK drops what it cannot read, and takes a request whose id it cannot read for a notification: either way
whoever sent it would wait for ever.
"""

import codecs
import json
import math

from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)
from pydantic import ValidationError
from pydantic_core import from_json

Json = dict[str, object]
Answer = JSONRPCResponse | JSONRPCError


class LineRefused(Exception):
    """replies: an error for each request of the value, or one without an id if there is none to be seen."""

    def __init__(self, value: object, code: int, message: str) -> None:
        super().__init__(message)
        members = value if isinstance(value, list) else [value]
        ids: list[str | int | float | None] = [
            seen for member in members if (seen := _id_seen(member)) is not None
        ]
        self.replies: list[Json] = [
            {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
            for request_id in ids or [None]
        ]


def decoded(line: bytes) -> object:
    """The JSON value of a line in UTF-8; a byte order mark before it is no part of it. Raises LineRefused."""
    line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return from_json(line)
    except ValueError as error:
        message = f"Not JSON in UTF-8: {error}. Send each message as one line."
        raise LineRefused(_loosely_decoded(line), PARSE_ERROR, message) from error


def checked(value: object) -> JSONRPCRequest | JSONRPCNotification | Answer | None:
    """The message; None for a broken answer, which must not be answered in turn. Raises LineRefused."""
    if isinstance(value, dict) and _is_answer(value):
        return _answer(value)
    if not isinstance(value, dict):
        raise LineRefused(value, INVALID_REQUEST, "A message must be a JSON object.")
    if fault := _fault(value):
        raise LineRefused(value, INVALID_REQUEST, f"Not a request of JSON-RPC 2.0: {fault}.")
    if "id" not in value:
        return JSONRPCNotification.model_validate(value)
    return JSONRPCRequest.model_validate(value | {"id": _whole(value["id"])})


def _fault(message: Json) -> str | None:
    if message.get("jsonrpc") != "2.0":
        return "'jsonrpc' must be '2.0'"
    if not isinstance(message.get("method"), str):
        return "'method' must be a text"
    if not isinstance(message.get("params"), dict | None):
        return "'params' must be an object"
    if "id" in message and _whole(message["id"]) is None:
        return "'id' must be a text or a whole number"
    return None


def _whole(request_id: object) -> str | int | None:
    """An id as MCP has them, or None. 1.0 is one: some languages know only such numbers."""
    if isinstance(request_id, float) and request_id.is_integer():
        return int(request_id)
    return request_id if isinstance(request_id, str | int) and not isinstance(request_id, bool) else None


def _is_answer(message: Json) -> bool:
    return "method" not in message and ("result" in message or "error" in message)


def _answer(message: Json) -> Answer | None:
    try:
        kind = JSONRPCResponse if "result" in message else JSONRPCError
        return kind.model_validate(message)
    except ValidationError:
        return None


def _id_seen(member: object) -> str | int | float | None:
    """The id to answer with, also one that MCP does not allow. None: there is none, or JSON cannot say it."""
    if not isinstance(member, dict) or _is_answer(member):
        return None
    match member.get("id"):
        case bool():
            return None
        case int() as number:
            return number
        case float() as number if math.isfinite(number):
            return number
        case str() as text if not any("\ud800" <= character <= "\udfff" for character in text):
            return text
        case _:
            return None


def _loosely_decoded(line: bytes) -> object:
    """To see who asks: half surrogates, bytes that are no UTF-8 and deep nesting may stand beside the id."""
    try:
        return json.loads(line.decode("utf-8", errors="surrogateescape"))
    except (ValueError, RecursionError):
        return None
