"""The messages of a conversation, as they are sent."""

import json
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import Message, Role, ToolCall
from openai_shim.http.parsing import RequestModel

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


class CalledFunction(RequestModel):
    name: Name
    arguments: Annotated[str, AfterValidator(json_object)]

    def to_engine(self, call_id: str) -> ToolCall:
        return ToolCall(call_id, self.name, self.arguments)


class CalledTool(RequestModel):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    def to_engine(self) -> ToolCall:
        return self.function.to_engine(self.id)


class ChatMessage(RequestModel):
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
