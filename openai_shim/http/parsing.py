"""From the bytes of a request to one of the schemas, under the configured policy for unknown fields."""

import re
from http import HTTPStatus
from typing import TypeVar

from openai_shim.http.context import Request
from openai_shim.http.errors import Refused, UnsupportedParameter
from openai_shim.http.wire import WireModel

W = TypeVar("W", bound=WireModel)

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json")
_HEADER_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_NAMED = 32
"""Names of ignored fields per reply; they are the caller's own words and must not blow up the headers."""


def parse(kind: type[W], request: Request) -> W:
    """Raises ValidationError, UnsupportedParameter or Refused. Ignored fields go into the reply's headers."""
    _check_content_type(request)
    wanted, ignored = read(kind, request.body, strict=request.app.ctx.settings.strict)
    if named := [name for name in ignored if _HEADER_SAFE.fullmatch(name)][:MAX_NAMED]:
        request.ctx.headers["x-ignored-params"] = ",".join(named)
    return wanted


def read(kind: type[W], body: str | bytes, *, strict: bool) -> tuple[W, list[str]]:
    """And the names of the fields that had no effect. Raises ValidationError or UnsupportedParameter."""
    wanted = kind.model_validate_json(body)
    ignored = sorted(set(wanted.ignored()))
    if ignored and strict:
        raise UnsupportedParameter(f"Unknown parameter: '{ignored[0]}'.", param=ignored[0])
    return wanted, ignored


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not _JSON_TYPE.fullmatch(kind):
        raise Refused(
            "Send JSON, with the header `Content-Type: application/json`.",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            code="unsupported_media_type",
        )
