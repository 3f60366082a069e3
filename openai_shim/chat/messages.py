"""The messages of a conversation, as they are sent."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.types import Message, Role, ToolCall
from openai_shim.http.parsing import RequestModel, type_of

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

TEXT_KINDS = ("text", "input_text", "output_text")


class TextPart(RequestModel):
    """Chat completions know the first type, responses the others."""

    type: Literal["text", "input_text", "output_text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        kind = type_of(value)
        if kind is not None and kind not in TEXT_KINDS:
            raise PydanticCustomError("part", f"is of type {kind!r}; this model reads text only")
        return value


class RefusalPart(RequestModel):
    """Of an earlier answer, by a model that has refusals beside its text."""

    type: Literal["refusal"]
    refusal: str

    def ignored(self) -> Iterator[str]:
        yield from super().ignored()
        yield "refusal"


def _kind_of_part(part: object) -> str:
    return "<refusal>" if type_of(part) == "refusal" else "<text>"


Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")],
    Discriminator(_kind_of_part),
]


def _kind_of_content(content: object) -> str:
    return "<parts>" if isinstance(content, list) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[Part], Tag("<parts>")],
    Discriminator(_kind_of_content),
]


def text_of(content: Content | None) -> str:
    if isinstance(content, list):
        return "\n".join(part.text for part in content if isinstance(part, TextPart))
    return content or ""


class CalledFunction(RequestModel):
    """arguments: what the model wrote. They may be broken: it is to see that."""

    name: Name
    arguments: str

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
    content: Content | None = None
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
            return Message("tool", text_of(self.content), tool_call_id=self.name)
        role: Role = "system" if self.role == "developer" else self.role
        calls = [call.to_engine() for call in self.tool_calls or ()]
        if self.function_call:  # it has no id: its result is known by the function's name
            calls.append(self.function_call.to_engine(self.function_call.name))
        return Message(role, text_of(self.content), tuple(calls), self.tool_call_id)

    def ignored(self) -> Iterator[str]:
        yield from super().ignored()
        if self.name is not None and self.role != "function":
            yield "name"
