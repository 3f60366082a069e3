"""The events of a streamed response."""

from collections.abc import Iterator
from itertools import count

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import ChatEvent, ChatFinished, ChatPiece, ChatToolCall, FinishReason, ToolCall, Usage
from openai_shim.http import sse
from openai_shim.http.errors import Failure
from openai_shim.responses.reply import (
    FunctionCall,
    MessageStatus,
    OutputItem,
    OutputMessage,
    ResponseWriter,
    new_id,
    output_message,
    output_text,
    status_of,
)


class ResponseEvent(TypedDict):
    """type: as the event's name. What else it has depends on that, as in OpenAI's."""

    type: str
    sequence_number: int


class ResponseFrames:
    """The events of one stream; text and calls are items of the output, one after the other."""

    def __init__(self, writer: ResponseWriter) -> None:
        self._writer = writer
        self._numbers = count()
        self._output: list[OutputItem] = []
        self._text: str | None = None
        """Of the message that is being written."""
        self._message_id = new_id("msg")

    def opening(self) -> bytes:
        begun = self._writer.begun()
        return self._frame("response.created", response=begun) + self._frame(
            "response.in_progress", response=begun
        )

    def of(self, choice: int, event: ChatEvent) -> bytes:
        """choice: a response has but one."""
        match event:
            case ChatPiece(text):
                return b"".join(self._piece(text))
            case ChatToolCall(call):
                return b"".join((*self._end_of_text("completed"), *self._call(call)))
            case ChatFinished(reason, usage):
                return b"".join(self._end(reason, usage))
            case _:
                raise AssertionError(f"unexpected in the middle of a conversation: {event}")

    def failed(self, failure: Failure) -> bytes:
        return self._frame("response.failed", response=self._writer.failed(failure, self._output))

    def _piece(self, text: str) -> Iterator[bytes]:
        if self._text is None:
            yield from self._begin_of_text()
        self._text = (self._text or "") + text
        yield self._of_text("response.output_text.delta", delta=text, logprobs=[])

    def _begin_of_text(self) -> Iterator[bytes]:
        item: OutputMessage = {**output_message("", self._message_id, "in_progress"), "content": []}
        yield self._of_item("response.output_item.added", item=item)
        yield self._of_text("response.content_part.added", part=output_text(""))
        self._text = ""

    def _end_of_text(self, status: MessageStatus) -> Iterator[bytes]:
        if self._text is None:
            return
        text, self._text = self._text, None
        item = output_message(text, self._message_id, status)
        yield self._of_text("response.output_text.done", text=text, logprobs=[])
        yield self._of_text("response.content_part.done", part=output_text(text))
        yield self._of_item("response.output_item.done", item=item)
        self._output.append(item)

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        item = self._writer.function_call(call)
        item_id, arguments = item["id"], call.arguments
        begun: FunctionCall = {**item, "status": "in_progress", "arguments": ""}
        name = "response.function_call_arguments"
        yield self._of_item("response.output_item.added", item=begun)
        yield self._of_item(f"{name}.delta", item_id=item_id, delta=arguments)
        yield self._of_item(f"{name}.done", item_id=item_id, name=item["name"], arguments=arguments)
        yield self._of_item("response.output_item.done", item=item)
        self._output.append(item)

    def _end(self, reason: FinishReason, usage: Usage) -> Iterator[bytes]:
        if not self._output and self._text is None:
            yield from self._begin_of_text()  # an answer without text is a message all the same
        yield from self._end_of_text(status_of(reason))
        response = self._writer.finished(reason, self._output, usage)
        yield self._frame(f"response.{status_of(reason)}", response=response)

    def _of_text(self, kind: str, **facts: object) -> bytes:
        return self._of_item(kind, item_id=self._message_id, content_index=0, **facts)

    def _of_item(self, kind: str, **facts: object) -> bytes:
        return self._frame(kind, output_index=len(self._output), **facts)

    def _frame(self, kind: str, **facts: object) -> bytes:
        event: ResponseEvent = {"type": kind, "sequence_number": next(self._numbers)}
        return sse.named_frame(kind, {**event, **facts})
