"""The input of a response: messages, and what else earlier answers consisted of."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Discriminator, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.types import Message, Role, ToolCall
from openai_shim.chat.messages import Content, text_of
from openai_shim.http.parsing import RequestModel, type_of
from openai_shim.responses.tools import within

Status = Literal["in_progress", "completed", "incomplete"]


class EarlierItem(RequestModel):
    """id and status: of an item that an earlier answer consisted of; without effect."""

    id: str | None = None
    status: Status | None = None


class MessageItem(EarlierItem):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content

    @model_validator(mode="before")
    @classmethod
    def _is_read_here(cls, value: object) -> object:
        kind = type_of(value)
        if kind not in (None, "message"):
            raise PydanticCustomError(
                "item", f"is of type {kind!r}; messages, calls of functions and their outputs are read here"
            )
        return value

    def to_engine(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        return Message(role, text_of(self.content))


class FunctionCallItem(EarlierItem):
    """arguments: what the model wrote. They may be broken: it is to see that."""

    type: Literal["function_call"]
    call_id: str
    namespace: str | None = None
    name: str
    arguments: str

    def to_engine(self) -> Message:
        name = within(self.namespace, self.name)
        return Message("assistant", "", (ToolCall(self.call_id, name, self.arguments),))


class FunctionCallOutputItem(EarlierItem):
    type: Literal["function_call_output"]
    call_id: str
    output: Content

    def to_engine(self) -> Message:
        return Message("tool", text_of(self.output), tool_call_id=self.call_id)


class ReasoningItem(RequestModel):
    """What another model thought, often encrypted; this one cannot read it."""

    type: Literal["reasoning"]

    def ignored(self) -> Iterator[str]:
        yield self.type


def _kind(item: object) -> str:
    kind = type_of(item)
    return f"<{kind}>" if kind in ("function_call", "function_call_output", "reasoning") else "<message>"


InputItem = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[FunctionCallOutputItem, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")],
    Discriminator(_kind),
]


def conversation(instructions: str | None, items: list[InputItem]) -> tuple[Message, ...]:
    """Text and calls that the assistant gave in one turn become one message."""
    messages = [Message("system", instructions)] if instructions else []
    for message in (item.to_engine() for item in items if not isinstance(item, ReasoningItem)):
        if message.tool_calls and messages and messages[-1].role == "assistant":
            messages[-1] = replace(messages[-1], tool_calls=messages[-1].tool_calls + message.tool_calls)
        else:
            messages.append(message)
    return tuple(messages)
