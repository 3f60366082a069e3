"""What the caller reads when something goes wrong: one table from exceptions to OpenAI error objects.

Clients act on more than the status: openai-python reads all four keys of the body and the headers
`Retry-After` and `x-should-retry`; LiteLLM and agents recognise an overflow by the sentence OpenAI uses for
it; LiteLLM takes any mention of a rate limit for one, so no other error may speak of it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sanic.exceptions import MethodNotAllowed, PayloadTooLarge, RequestTimeout, SanicException
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine import errors as engine_errors
from openai_shim.http.paths import without_paths


class BadParameter(engine_errors.BadInput):
    """A wrong request, found here. param: the name of the parameter on the wire."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnsupportedParameter(BadParameter):
    """The caller asks for something the gateway knows of and does not do, or (strict) does not know."""


class RequestRefused(SanicException):
    """A request turned away before anything was done for it; `code` is the OpenAI error code."""

    quiet = True

    def __init__(
        self, message: str, *, status: HTTPStatus, code: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, status_code=status, headers=headers)
        self.code = code


class ContextOverflow(TypedDict, total=False):
    # As llama.cpp's server writes it.
    n_ctx: int
    n_prompt_tokens: int


class ErrorDetail(ContextOverflow):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(TypedDict):
    error: ErrorDetail


@dataclass(frozen=True)
class Failure:
    """overflow: keys beside the four of OpenAI; headers: beside those of every reply."""

    status: int
    message: str
    type: str
    code: str | None
    param: str | None = None
    overflow: ContextOverflow = field(default_factory=ContextOverflow)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> Error:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
                **self.overflow,
            }
        }


_DO_NOT_RETRY = {"x-should-retry": "false"}
"""SDKs send a request that met a 5xx again, twice; what crashed a worker or hit a bug does so each time."""


WIRE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "inputs": "input",
        "json_format": "response_format",
        "token_ids": "tokens",
        "tool_use": "tool_choice",
        "tools": "tools[{index}].function.parameters",
    }
)
"""What OpenAI calls the fields of the engine's values, where the names differ."""


def describe(error: BaseException, wire_names: Mapping[str, str] = WIRE_NAMES) -> Failure:
    """Never shows the text of an error that was not written for users.

    wire_names: what the caller's kind of request calls the engine's fields.
    """
    match error:
        case engine_errors.ContextTooLong():
            return _context_too_long(error, _param(error, wire_names))
        case UnsupportedParameter():
            return _bad_request(str(error), "unsupported_parameter", error.param)
        case BadParameter():
            return _bad_request(str(error), "invalid_value", error.param)
        case engine_errors.BadInput():
            return _bad_request(str(error), "invalid_value", _param(error, wire_names))
        case engine_errors.ModelNotFound():
            return Failure(404, str(error), "invalid_request_error", "model_not_found", "model")
        case engine_errors.Overloaded():
            return Failure(429, str(error), "rate_limit_error", "overloaded", headers=_retry_after(error))
        case engine_errors.ModelNotReady():
            return _server_error(503, error, "model_not_ready", _retry_after(error))
        case engine_errors.Unavailable():
            return _server_error(503, error, "unavailable", _retry_after(error))
        case engine_errors.WorkerCrashed():
            return _server_error(500, error, "worker_crashed", _DO_NOT_RETRY)
        case engine_errors.EngineError():
            return _server_error(500, error, "engine_error", _DO_NOT_RETRY)
        case ValidationError():
            return _invalid(error.errors(include_url=False)[0])
        case SanicException():
            return _http(error)
        case _:
            return Failure(
                500,
                "The gateway met a bug. Its log has the details under this reply's x-request-id.",
                "server_error",
                "internal_error",
                headers=_DO_NOT_RETRY,
            )


def _bad_request(message: str, code: str, param: str | None) -> Failure:
    return Failure(400, message, "invalid_request_error", code, param)


def _server_error(
    status: int, error: engine_errors.EngineError, code: str, headers: Mapping[str, str]
) -> Failure:
    return Failure(status, without_paths(str(error)), "server_error", code, headers=headers)


def _param(error: engine_errors.BadInput, wire_names: Mapping[str, str]) -> str | None:
    return error.field and wire_names.get(error.field, error.field).format(index=error.index)


def _context_too_long(error: engine_errors.ContextTooLong, param: str | None) -> Failure:
    """OpenAI's sentences: clients tell an overflow from other errors by the first one (LiteLLM, Cline)."""
    actual = f"{'at least ' if error.at_least else ''}{error.actual_tokens} tokens"
    return Failure(
        400,
        f"This model's maximum context length is {error.limit_tokens} tokens. "
        + (
            f"However, your messages resulted in {actual}. Please reduce the length of the messages."
            if error.index is None
            else f"However, input {error.index} has {actual}. Split it or shorten it."
        ),
        "invalid_request_error",
        "context_length_exceeded",
        param,
        overflow={"n_ctx": error.limit_tokens, "n_prompt_tokens": error.actual_tokens},
    )


def _retry_after(error: engine_errors.Unavailable) -> dict[str, str]:
    """Whole seconds: openai-python also reads fractions, other clients do not."""
    return {"retry-after": str(max(1, math.ceil(error.retry_after_seconds)))}


_TAG = re.compile(r"<\w+>")
"""Which of its forms a value was taken for: no name that the caller knows."""


def _invalid(detail: ErrorDetails) -> Failure:
    if detail["type"] == "json_invalid":
        return _bad_request(f"The body is not valid JSON: {detail['ctx']['error']}.", "invalid_json", None)
    named = (part for part in detail["loc"] if not _TAG.fullmatch(str(part)))
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).lstrip(".")
    if detail["type"] == "missing":
        return _bad_request(f"Missing required parameter: '{param}'.", "missing_required_parameter", param)
    code = "invalid_type" if detail["type"].endswith("_type") else "invalid_value"
    reason = detail["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return _bad_request(f"Invalid '{param}': {reason}." if param else f"{reason}.", code, param or None)


_HTTP_CODES = {
    400: "bad_request",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    414: "uri_too_long",
    417: "expectation_failed",
    426: "upgrade_required",
    503: "unavailable",
}


def _http(error: SanicException) -> Failure:
    """What the server itself refuses. Its messages for clients (below 500) reveal nothing but the request."""
    status = error.status_code
    kind = "server_error" if status >= 500 else "invalid_request_error"
    headers = {str(name): str(value) for name, value in error.headers.items()}
    if isinstance(error, RequestRefused):
        return Failure(status, str(error), kind, error.code, headers=headers)
    return Failure(status, _wording(error), kind, _HTTP_CODES.get(status), headers=headers)


def _wording(error: SanicException) -> str:
    match error:
        case MethodNotAllowed():
            return f"This address does not take that method, but {error.headers.get('Allow', 'another one')}."
        case PayloadTooLarge():
            return "The request is too large: at most 8 MiB of body and 8 KiB of headers."
        case _ if error.status_code == HTTPStatus.UPGRADE_REQUIRED:
            return "This address takes WebSocket connections only."
        case RequestTimeout():
            return "The request did not arrive in time."
        case _ if error.status_code >= 500:
            return "The request took too long and was ended."
        case _:
            return "The request is not valid HTTP."
