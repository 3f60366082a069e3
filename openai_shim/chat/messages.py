"""The OpenAI wire formats inside a chat request: messages, tools, the form of the answer."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.errors import BadInput
from engine.types import JsonFormat, Message, Role, Tool, ToolCall, ToolUse
from openai_shim.http.wire import WireModel

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

    def to_engine(self, call_id: str) -> ToolCall:
        return ToolCall(call_id, self.name, self.arguments)


class CalledTool(WireModel):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    def to_engine(self) -> ToolCall:
        return self.function.to_engine(self.id)


class ChatMessage(WireModel):
    """name: of the function whose result this is, from before there were tools; ignored elsewhere."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _only_the_assistant_may_be_silent(self) -> "ChatMessage":
        """An assistant's turn that only called tools has no content."""
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("missing_content", f"content is required for the role {self.role!r}")
        if self.role == "function" and self.name is None:
            raise PydanticCustomError("missing_name", "name is required for the role 'function'")
        return self

    def to_engine(self) -> Message:
        if self.role == "function":
            return Message("tool", self.content or "", tool_call_id=self.name)
        role: Role = "system" if self.role == "developer" else self.role
        calls = [call.to_engine() for call in self.tool_calls or ()]
        if self.function_call:  # it has no id: its result is known by the function's name
            calls.append(self.function_call.to_engine(self.function_call.name))
        return Message(role, self.content or "", tuple(calls), self.tool_call_id)

    def ignored(self) -> Iterator[str]:
        yield from super().ignored()
        if self.name is not None and self.role != "function":
            yield "name"


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


def chosen_function(value: object) -> object:
    """As `chosen_tool`, from before there were tools."""
    match value:
        case None | "none" | "auto":
            return value
        case {"name": str(name)}:
            return {"only": name}
        case _:
            raise PydanticCustomError("function_call", "must be none, auto or an object with a name")


FunctionChoice = Annotated[
    Any,
    PlainValidator(chosen_function, json_schema_input_type=Literal["none", "auto"] | NamedFunction | None),
]


def tool_use(
    tools: Sequence[FunctionDefinition], choice: Any, *, parallel: bool, choice_field: str = "tool_choice"
) -> ToolUse | None:
    """choice: as `chosen_tool` or `chosen_function` left it. None without tools. Raises BadInput."""
    offered = tuple(tool.to_engine() for tool in tools)
    only = choice["only"] if isinstance(choice, dict) else None
    if only is not None and only not in {tool.name for tool in offered}:
        raise BadInput(f"{choice_field} names {only!r}, which is not among the tools.", param=choice_field)
    if choice == "required" and not offered:
        raise BadInput(f"{choice_field} is 'required', but there are no tools.", param=choice_field)
    if not offered:
        return None
    word = choice if isinstance(choice, str) else "auto"
    return ToolUse(offered, word, only, parallel)  # type: ignore[arg-type]


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
