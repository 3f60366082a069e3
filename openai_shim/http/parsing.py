"""From the bytes of a request to its schema, under the configured policy for unknown fields.

A field is honoured, refused by name, or (if the gateway does not know it) ignored and named in the reply. A
known field that the engine cannot honour yet is accepted with a value that asks for nothing, because clients
send such values unasked (`n: 1`, `tools: []`), and refused with any other.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from openai_shim.http.context import Request
from openai_shim.http.errors import WIRE_NAMES, RequestRefused, UnsupportedParameter

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json")
_HEADER_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_NAMED = 32
"""Names of ignored fields per reply; they are the caller's own words and must not blow up the headers."""


class RequestModel(BaseModel):
    """An object in a request. Strict: OpenAI does not take "5" for 5 either."""

    model_config = ConfigDict(
        strict=True, extra="allow", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    idle_values: ClassVar[Mapping[str, tuple[object, ...]]] = MappingProxyType({})
    """Known fields that are not honoured, with the values (beside null) that ask for nothing."""

    wire_names: ClassVar[Mapping[str, str]] = WIRE_NAMES
    """What this kind of request calls the fields of the engine's values."""

    @model_validator(mode="after")
    def _refuse_what_is_not_done(self) -> "RequestModel":
        for name, value in (self.model_extra or {}).items():
            if name in self.idle_values and value is not None and value not in self.idle_values[name]:
                raise UnsupportedParameter(
                    f"This gateway does not support '{name}'. Leave it out.", param=name
                )
        return self

    def ignored(self) -> Iterator[str]:
        """Dotted names of the fields, here and in nested objects, that had no effect.

        Null, an empty list and an empty object asked for none.
        """
        asked = (name for name, value in (self.model_extra or {}).items() if value not in (None, [], {}))
        yield from (name for name in asked if name not in self.idle_values)
        for name in type(self).model_fields:
            value = getattr(self, name)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, RequestModel):
                    yield from (f"{name}.{inner}" for inner in item.ignored())


def type_of(value: object) -> str | None:
    """What an object says that it is, read or not."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None


M = TypeVar("M", bound=RequestModel)


def parse(kind: type[M], request: Request) -> M:
    """Raises ValidationError, UnsupportedParameter, RequestRefused. The headers name what is ignored."""
    _check_content_type(request)
    request.ctx.wire_names = kind.wire_names
    wanted, ignored = read(kind, request.body, strict=request.app.ctx.settings.strict)
    if named := [name for name in ignored if _HEADER_SAFE.fullmatch(name)][:MAX_NAMED]:
        request.ctx.headers["x-ignored-params"] = ",".join(named)
    return wanted


def read(kind: type[M], body: str | bytes, *, strict: bool) -> tuple[M, list[str]]:
    """And the names of the fields that had no effect. Raises ValidationError or UnsupportedParameter."""
    wanted = kind.model_validate_json(body)
    ignored = sorted(set(wanted.ignored()))
    if ignored and strict:
        raise UnsupportedParameter(f"Unknown parameter: '{ignored[0]}'.", param=ignored[0])
    return wanted, ignored


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not _JSON_TYPE.fullmatch(kind):
        raise RequestRefused(
            "Send JSON, with the header `Content-Type: application/json`.",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            code="unsupported_media_type",
        )
