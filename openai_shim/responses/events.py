"""The OpenAI wire formats of /v1/responses: the whole object, and the events of a stream."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import orjson

from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatToolCall,
    Completion,
    FinishReason,
    JsonFormat,
    ModelStatus,
    ToolCall,
    Usage,
)
from openai_shim.chat.reply import JsonObject
from openai_shim.http.errors import Failure
from openai_shim.responses.request import ResponseRequest


@dataclass(frozen=True)
class Reply:
    """What all objects of one reply have in common. created: Unix seconds."""

    asked: ResponseRequest
    model: ModelStatus
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(24)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, completion: Completion) -> JsonObject:
        reason = completion.finish_reason
        output = [_called(call, _id("fc")) for call in completion.tool_calls]
        if completion.text or not output:
            output.insert(0, _message(completion.text, _id("msg"), _status(reason)))
        return self.finished(reason, output, completion.usage)

    def begun(self) -> JsonObject:
        return self._object("in_progress", [])

    def finished(self, reason: FinishReason, output: list[JsonObject], usage: Usage) -> JsonObject:
        cut = {"reason": "max_output_tokens"} if reason == "length" else None
        return self._object(_status(reason), output, incomplete_details=cut, usage=_usage(usage))

    def failed(self, failure: Failure, output: list[JsonObject]) -> JsonObject:
        error = {"code": failure.code or "server_error", "message": failure.message}
        return self._object("failed", output, error=error)

    def _object(self, status: str, output: list[JsonObject], **outcome: object) -> JsonObject:
        asked = self.asked
        head: JsonObject = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self.model.id,
            "output": output,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": _format(asked.text.format if asked.text else None)},
            "tool_choice": _choice(asked.tool_choice),
            "tools": [_echo(tool.model_dump_json()) for tool in asked.tools or ()],
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None,
        }
        return head | outcome


class ResponseFrames:
    """The events of one stream; text and calls are items of the output, one after the other."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._numbers = count()
        self._output: list[JsonObject] = []
        self._text: str | None = None
        """Of the message that is being written."""
        self._message_id = _id("msg")

    def opening(self) -> bytes:
        begun = self._reply.begun()
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
        return self._frame("response.failed", response=self._reply.failed(failure, self._output))

    def _piece(self, text: str) -> Iterator[bytes]:
        if self._text is None:
            yield from self._begin_of_text()
        self._text = (self._text or "") + text
        yield self._of_text("response.output_text.delta", delta=text, logprobs=[])

    def _begin_of_text(self) -> Iterator[bytes]:
        item = _message("", self._message_id, "in_progress") | {"content": []}
        yield self._of_item("response.output_item.added", item=item)
        yield self._of_text("response.content_part.added", part=_part(""))
        self._text = ""

    def _end_of_text(self, status: str) -> Iterator[bytes]:
        if self._text is None:
            return
        text, self._text = self._text, None
        item = _message(text, self._message_id, status)
        yield self._of_text("response.output_text.done", text=text, logprobs=[])
        yield self._of_text("response.content_part.done", part=_part(text))
        yield self._of_item("response.output_item.done", item=item)
        self._output.append(item)

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        item = _called(call, _id("fc"))
        item_id, arguments = item["id"], call.arguments
        begun = item | {"status": "in_progress", "arguments": ""}
        name = "response.function_call_arguments"
        yield self._of_item("response.output_item.added", item=begun)
        yield self._of_item(f"{name}.delta", item_id=item_id, delta=arguments)
        yield self._of_item(f"{name}.done", item_id=item_id, name=call.name, arguments=arguments)
        yield self._of_item("response.output_item.done", item=item)
        self._output.append(item)

    def _end(self, reason: FinishReason, usage: Usage) -> Iterator[bytes]:
        if not self._output and self._text is None:
            yield from self._begin_of_text()  # an answer without text is a message all the same
        yield from self._end_of_text(_status(reason))
        response = self._reply.finished(reason, self._output, usage)
        yield self._frame(f"response.{_status(reason)}", response=response)

    def _of_text(self, kind: str, **facts: object) -> bytes:
        return self._of_item(kind, item_id=self._message_id, content_index=0, **facts)

    def _of_item(self, kind: str, **facts: object) -> bytes:
        return self._frame(kind, output_index=len(self._output), **facts)

    def _frame(self, kind: str, **facts: object) -> bytes:
        event = {"type": kind, "sequence_number": next(self._numbers)} | facts
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event))


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


def _status(reason: FinishReason) -> str:
    return "incomplete" if reason == "length" else "completed"


def _message(text: str, item_id: str, status: str) -> JsonObject:
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [_part(text)],
    }


def _part(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _called(call: ToolCall, item_id: str) -> JsonObject:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _usage(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _echo(json: str) -> orjson.Fragment:
    """What the caller wrote, as text: orjson cannot write every number that callers can."""
    return orjson.Fragment(json)


def _format(wanted: JsonFormat | None) -> JsonObject:
    if wanted is None:
        return {"type": "text"}
    if wanted.schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "name": "answer", "schema": _echo(wanted.schema), "strict": True}


def _choice(choice: object) -> object:
    """As `chosen_tool` reads it, written as it was asked for."""
    return {"type": "function", "name": choice["only"]} if isinstance(choice, dict) else choice or "auto"
