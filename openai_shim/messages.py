"""The OpenAI wire formats inside a chat request: messages, tools, the form of the answer."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.errors import BadInput
from engine.types import JsonFormat, Message, Role, Tool, ToolCall, ToolUse
from openai_shim.wire import WireModel

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


TEXT_KINDS = ("text", "input_text", "output_text")
"""Chat completions know the first, responses the others."""


class TextPart(TypedDict):
    type: Literal["text", "input_text", "output_text"]
    text: str


def text_of_parts(value: object) -> object:
    """Content may come as a list of parts; those of text are joined, others refused by name."""
    if not isinstance(value, list):
        return value
    texts = []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind not in TEXT_KINDS:
            raise PydanticCustomError("part", f"part {index} is of type {kind!r}; this model reads text only")
        if not isinstance(text, str):
            raise PydanticCustomError("part", f"part {index} has no text")
        texts.append(text)
    return "\n".join(texts)


Content = Annotated[
    str | None, BeforeValidator(text_of_parts, json_schema_input_type=str | list[TextPart] | None)
]


def json_object(value: str) -> str:
    """Arguments that a model wrote and a client sends back. Some send nothing where there are none."""
    try:
        parsed = json.loads(value or "{}")
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise PydanticCustomError("arguments", "must be a JSON object, as text")
    return json.dumps(parsed, ensure_ascii=False)


class CalledFunction(WireModel):
    name: Name
    arguments: Annotated[str, AfterValidator(json_object)]


class CalledTool(WireModel):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    def to_engine(self) -> ToolCall:
        return ToolCall(self.id, self.function.name, self.function.arguments)


class ChatMessage(WireModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _only_the_assistant_may_be_silent(self) -> "ChatMessage":
        """An assistant's turn that only called tools has no content."""
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("missing_content", f"content is required for the role {self.role!r}")
        return self

    def to_engine(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        calls = tuple(call.to_engine() for call in self.tool_calls or ())
        return Message(role, self.content or "", calls, self.tool_call_id)


class FunctionDefinition(WireModel):
    """strict changes nothing: arguments always match the schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def to_engine(self) -> Tool:
        schema = self.parameters or {"type": "object", "properties": {}}
        return Tool(self.name, self.description or "", json.dumps(schema, ensure_ascii=False))


class ToolDefinition(WireModel):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(TypedDict):
    name: str


class NamedTool(TypedDict):
    type: Literal["function"]
    function: NamedFunction


def chosen_tool(value: object) -> object:
    """One of the words, or a dict whose `only` is the function's name, written in either API's way."""
    match value:
        case None | "none" | "auto" | "required":
            return value
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return {"only": name}
        case _:
            raise PydanticCustomError("tool_choice", "must be none, auto, required or the name of a function")


ToolChoice = Annotated[
    Any,
    PlainValidator(
        chosen_tool, json_schema_input_type=Literal["none", "auto", "required"] | NamedTool | None
    ),
]


def tool_use(tools: Sequence[FunctionDefinition], choice: Any, parallel: bool | None) -> ToolUse | None:
    """choice: as `chosen_tool` left it. None without tools. Raises BadInput."""
    if not tools:
        return None
    offered = tuple(tool.to_engine() for tool in tools)
    only = choice["only"] if isinstance(choice, dict) else None
    if only is not None and only not in {tool.name for tool in offered}:
        raise BadInput(f"tool_choice names {only!r}, which is not among the tools.", param="tool_choice")
    word = choice if isinstance(choice, str) else "auto"
    return ToolUse(offered, word, only, parallel is not False)  # type: ignore[arg-type]


class NamedSchema(TypedDict):
    name: str
    schema: dict[str, Any]


class ResponseFormat(TypedDict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema


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
    JsonFormat | None, PlainValidator(json_format, json_schema_input_type=ResponseFormat | None)
]
