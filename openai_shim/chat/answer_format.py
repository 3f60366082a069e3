"""The form of the answer: any text, some JSON object, or JSON by a schema."""

import json
from typing import Annotated, Any, Literal

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import JsonFormat


class FreeFormat(TypedDict):
    type: Literal["text", "json_object"]


class WrappedSchema(TypedDict):
    schema: dict[str, Any]


class SchemaFormat(TypedDict):
    type: Literal["json_schema"]
    json_schema: WrappedSchema


def json_format(value: object) -> JsonFormat | None:
    match value:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return JsonFormat()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return JsonFormat(json.dumps(schema, ensure_ascii=False))
        case {"type": "json_schema"}:
            raise PydanticCustomError("response_format", "of type json_schema needs json_schema.schema")
        case _:
            raise PydanticCustomError("response_format", "must be of type text, json_object or json_schema")


AnswerFormat = Annotated[
    JsonFormat | None, PlainValidator(json_format, json_schema_input_type=FreeFormat | SchemaFormat | None)
]
