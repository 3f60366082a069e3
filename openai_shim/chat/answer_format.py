"""The form of the answer: any text, some JSON object, or JSON by a schema."""

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.types import JsonFormat
from openai_shim.http.parsing import RequestModel

FormatKind = Literal["text", "json_object", "json_schema"]


class SchemaNotes(RequestModel):
    """Known, and without effect: every answer is held to its schema."""

    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class NamedSchema(SchemaNotes):
    schema_: dict[str, Any] = Field(alias="schema")


class AnswerFormat(RequestModel):
    """schema: of a json_object, as llama.cpp's server has it."""

    type: FormatKind
    json_schema: NamedSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _has_its_schema(self) -> "AnswerFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise PydanticCustomError("response_format", "of type json_schema needs json_schema.schema")
        return self

    def to_engine(self) -> JsonFormat | None:
        if self.json_schema and self.type == "json_schema":
            return json_format(self.type, self.json_schema.schema_)
        return json_format(self.type, self.schema_)

    def ignored(self) -> Iterator[str]:
        yield from super().ignored()
        if self.type != "json_object" and self.schema_ is not None:
            yield "schema"
        if self.type != "json_schema" and self.json_schema is not None:
            yield "json_schema"


def json_format(kind: FormatKind, schema: dict[str, Any] | None) -> JsonFormat | None:
    """schema: None allows any object."""
    if kind == "text":
        return None
    return JsonFormat(None if schema is None else json.dumps(schema, ensure_ascii=False))
