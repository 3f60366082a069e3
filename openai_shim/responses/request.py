"""What /v1/responses is asked. Nothing is kept between requests."""

from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import ChatRequest, JsonFormat, Message, Role, Sampling, ToolCall
from openai_shim.chat.answer_format import FreeFormat, json_format
from openai_shim.chat.messages import Content, json_object
from openai_shim.chat.tools import FunctionDefinition, chosen_tool, tool_use
from openai_shim.http.errors import WIRE_NAMES
from openai_shim.http.parsing import RequestModel

_NEEDED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


class InputItem(RequestModel):
    """A message, a call that the assistant made, or what a call gave. id and status: of an earlier answer."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Content = None
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "InputItem":
        for name in _NEEDED[self.type]:
            if getattr(self, name) is None:
                raise PydanticCustomError("missing_field", f"{name} is required for the type {self.type!r}")
        if self.arguments is not None:
            json_object(self.arguments)
        return self

    def to_engine(self) -> Message:
        if self.type == "function_call":
            arguments = json_object(self.arguments or "")
            return Message("assistant", "", (ToolCall(self.call_id or "", self.name or "", arguments),))
        if self.type == "function_call_output":
            return Message("tool", self.output or "", tool_call_id=self.call_id)
        role: Role = "system" if self.role == "developer" else self.role or "user"
        return Message(role, self.content or "")


def _items(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class ResponseTool(FunctionDefinition):
    type: Literal["function"]

    @model_validator(mode="before")
    @classmethod
    def _is_the_callers(cls, value: object) -> object:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind != "function":
            raise PydanticCustomError("tool", f"is of type {kind!r}; only functions can be called here")
        return value


class NamedResponseTool(TypedDict):
    type: Literal["function"]
    name: str


class TextSchemaFormat(TypedDict):
    type: Literal["json_schema"]
    schema: dict[str, Any]


def _text_format(value: object) -> JsonFormat | None:
    """The fields that chat completions have under json_schema stand beside the type here."""
    if isinstance(value, dict) and value.get("type") == "json_schema":
        value = {"type": "json_schema", "json_schema": value}
    return json_format(value)


class TextOptions(RequestModel):
    format: Annotated[
        JsonFormat | None,
        PlainValidator(_text_format, json_schema_input_type=FreeFormat | TextSchemaFormat | None),
    ] = None


class ResponseRequest(RequestModel):
    idle_values = MappingProxyType(
        {
            "background": (False,),
            "conversation": (),
            "include": ([],),
            "max_tool_calls": (),
            "previous_response_id": (),
            "prompt": (),
            "store": (False,),
            "top_logprobs": (0,),
            "truncation": ("disabled",),
        }
    )

    wire_names = MappingProxyType(
        {
            **WIRE_NAMES,
            "messages": "input",
            "json_format": "text.format",
            "tools": "tools[{index}].parameters",
        }
    )

    input: Annotated[
        list[InputItem],
        Field(min_length=1),
        BeforeValidator(_items, json_schema_input_type=str | Annotated[list[InputItem], Field(min_length=1)]),
    ]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
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
    stream: bool | None = None

    def to_engine(self) -> ChatRequest:
        """Raises BadInput."""
        return ChatRequest(
            self._messages(),
            self.model,
            Sampling(
                max_tokens=self.max_output_tokens,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
            ),
            self.text.format if self.text else None,
            tool_use(self.tools or (), self.tool_choice, parallel=self.parallel_tool_calls is not False),
        )

    def _messages(self) -> tuple[Message, ...]:
        """Text and calls that the assistant gave in one turn become one message."""
        messages = [Message("system", self.instructions)] if self.instructions else []
        for message in (item.to_engine() for item in self.input):
            if message.tool_calls and messages and messages[-1].role == "assistant":
                messages[-1] = replace(messages[-1], tool_calls=messages[-1].tool_calls + message.tool_calls)
            else:
                messages.append(message)
        return tuple(messages)
