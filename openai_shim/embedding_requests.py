"""The OpenAI wire format of a request for vectors."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from engine.types import EmbedRequest, InputType
from openai_shim.wire import WireModel

MAX_INPUTS = 2048

TextsOrTokens = str | list[str] | list[int] | list[list[int]]


def _texts_or_tokens(value: object) -> object:
    """One input becomes a list of one, so that the field has a single shape."""
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        value = [value]
    if not isinstance(value, list) or not all(_is_input(item) for item in value):
        raise PydanticCustomError(
            "input_type", "must be a string, a list of strings, a list of token ids or a list of those"
        )
    if not 1 <= len(value) <= MAX_INPUTS:
        raise PydanticCustomError("input_count", f"must have 1 to {MAX_INPUTS} inputs, not {len(value)}")
    for index, item in enumerate(value):
        if not item:
            raise PydanticCustomError("input_empty", f"must not be empty, but input {index} is")
    return value


def _is_input(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, list) and all(type(i) is int and i >= 0 for i in item))


class EmbeddingRequest(WireModel):
    """model left out: the default one. input_type is ours; a suffix of the model's name says the same."""

    input: Annotated[
        list[str | list[int]], BeforeValidator(_texts_or_tokens, json_schema_input_type=TextsOrTokens)
    ]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    input_type: InputType | None = None

    def to_engine(self, on_overflow: Literal["error", "truncate"]) -> EmbedRequest:
        model, suffix = _split_input_type(self.model)
        return EmbedRequest(
            inputs=tuple(item if isinstance(item, str) else tuple(item) for item in self.input),
            model=model,
            input_type=self.input_type or suffix or "document",
            dimensions=self.dimensions,
            on_overflow=on_overflow,
        )


def _split_input_type(model: str | None) -> tuple[str | None, InputType | None]:
    """`bge-small-en-v1.5:query` embeds questions: OpenAI clients can name a model but set no field."""
    if model and model.endswith(":query"):
        return model.removesuffix(":query"), "query"
    if model and model.endswith(":document"):
        return model.removesuffix(":document"), "document"
    return model, None
