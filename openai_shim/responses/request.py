"""What /v1/responses is asked. Nothing is kept between requests."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from engine.types import ChatRequest, JsonFormat, Sampling
from openai_shim.chat.answer_format import FormatKind, SchemaNotes, json_format
from openai_shim.chat.tools import chosen_tool, tool_use
from openai_shim.generation.request import TokenCount
from openai_shim.http.errors import WIRE_NAMES, BadParameter
from openai_shim.http.parsing import RequestModel
from openai_shim.responses.items import InputItem, conversation
from openai_shim.responses.tools import NamedResponseTool, ResponseTool, offered


class TextFormat(SchemaNotes):
    """What chat completions have under json_schema stands beside the type here."""

    type: FormatKind
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _has_its_schema(self) -> "TextFormat":
        if self.type == "json_schema" and self.schema_ is None:
            raise PydanticCustomError("text_format", "of type json_schema needs schema")
        return self

    def to_engine(self) -> JsonFormat | None:
        return json_format(self.type, self.schema_)

    def ignored(self) -> Iterator[str]:
        yield from super().ignored()
        if self.type == "text" and self.schema_ is not None:
            yield "schema"


class TextOptions(RequestModel):
    format: TextFormat | None = None


def _items(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class ResponseRequest(RequestModel):
    """include, store, truncation: nothing is kept, cut or shown beside the answer, so they have no effect."""

    idle_values = MappingProxyType(
        {
            "background": (False,),
            "conversation": (),
            "max_tool_calls": (),
            "previous_response_id": (),
            "prompt": (),
            "top_logprobs": (0,),
        }
    )

    wire_names = MappingProxyType(
        {
            **WIRE_NAMES,
            "messages": "input",
            "json_format": "text.format",
            "tools": "tools",  # those that the engine counts are not all that were sent
        }
    )

    input: Annotated[
        list[InputItem],
        Field(min_length=1),
        BeforeValidator(_items, json_schema_input_type=str | Annotated[list[InputItem], Field(min_length=1)]),
    ]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: TokenCount | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    text: TextOptions | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Annotated[
        Any,
        PlainValidator(
            chosen_tool,
            json_schema_input_type=Literal["none", "auto", "required"] | NamedResponseTool | None,
        ),
    ] = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    store: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream: bool | None = None

    def to_engine(self) -> ChatRequest:
        """Raises BadParameter."""
        messages = conversation(self.instructions, self.input)
        if not messages:
            raise BadParameter("The input has no message.", param="input")
        return ChatRequest(
            messages,
            self.model,
            Sampling(
                max_tokens=self.max_output_tokens,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
            ),
            self.text.format.to_engine() if self.text and self.text.format else None,
            tool_use(
                offered(self.tools or ()), self.tool_choice, parallel=self.parallel_tool_calls is not False
            ),
        )

    def ignored(self) -> Iterator[str]:
        yield from super().ignored()
        asked = {"include": self.include, "store": self.store, "truncation": self.truncation == "auto"}
        yield from (name for name, something in asked.items() if something)
