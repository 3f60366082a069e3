"""What /v1/responses answers: the response object, at each of its stages."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal, NotRequired

import orjson
from pydantic import GetPydanticSchema
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import Completion, FinishReason, ToolCall, Usage
from openai_shim.http.errors import Failure
from openai_shim.responses.request import ResponseRequest, TextFormat
from openai_shim.responses.tools import addresses

Echo = Annotated[orjson.Fragment, GetPydanticSchema(lambda _, schema_of: schema_of(dict[str, object]))]
"""An object of the request as the caller wrote it: orjson cannot write every number that callers can."""


MessageStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[object]
    logprobs: list[object]


class OutputMessage(TypedDict):
    id: str
    type: Literal["message"]
    status: MessageStatus
    role: Literal["assistant"]
    content: list[OutputText]


class FunctionCall(TypedDict):
    id: str
    type: Literal["function_call"]
    status: Literal["in_progress", "completed"]
    call_id: str
    namespace: NotRequired[str]
    name: str
    arguments: str


class ResponseError(TypedDict):
    code: str
    message: str


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


class InputTokensDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    reasoning_tokens: int


class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Response(TypedDict):
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage | FunctionCall]
    parallel_tool_calls: bool
    previous_response_id: None
    store: Literal[False]
    temperature: float
    text: dict[str, object]
    tool_choice: str | dict[str, str]
    tools: list[Echo]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None


OutputItem = OutputMessage | FunctionCall


@dataclass(frozen=True)
class ResponseWriter:
    """Of one response. model: what answers. created: Unix seconds."""

    asked: ResponseRequest
    model: str
    id: str = field(default_factory=lambda: new_id("resp"))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, completion: Completion) -> Response:
        reason = completion.finish_reason
        output: list[OutputItem] = [self.function_call(call) for call in completion.tool_calls]
        if completion.text or not output:
            output.insert(
                0, output_message(completion.text, new_id("msg"), status_of(completion.finish_reason))
            )
        return self.finished(reason, output, completion.usage)

    def begun(self) -> Response:
        asked = self.asked
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self.model,
            "output": [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": _format(asked.text.format if asked.text else None)},
            "tool_choice": _choice(asked.tool_choice),
            "tools": [orjson.Fragment(tool.model_dump_json()) for tool in asked.tools or ()],
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    def finished(self, reason: FinishReason, output: Sequence[OutputItem], usage: Usage) -> Response:
        return {
            **self.begun(),
            "status": status_of(reason),
            "incomplete_details": _incomplete(reason),
            "output": [*output],
            "usage": _usage(usage),
        }

    def failed(self, failure: Failure, output: Sequence[OutputItem]) -> Response:
        error: ResponseError = {"code": failure.code or "server_error", "message": failure.message}
        return {**self.begun(), "status": "failed", "error": error, "output": [*output]}

    def function_call(self, call: ToolCall) -> FunctionCall:
        namespace, name = self._addresses.get(call.name, (None, call.name))
        written: FunctionCall = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": name,
            "arguments": call.arguments,
        }
        return {**written, "namespace": namespace} if namespace else written

    @cached_property
    def _addresses(self) -> dict[str, tuple[str | None, str]]:
        return addresses(self.asked.tools or ())


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


def status_of(reason: FinishReason) -> Literal["incomplete", "completed"]:
    return "incomplete" if reason == "length" else "completed"


def _incomplete(reason: FinishReason) -> IncompleteDetails | None:
    return {"reason": "max_output_tokens"} if reason == "length" else None


def output_message(text: str, item_id: str, status: MessageStatus) -> OutputMessage:
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [output_text(text)],
    }


def output_text(text: str) -> OutputText:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> ResponseUsage:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _format(wanted: TextFormat | None) -> dict[str, object]:
    form = wanted.to_engine() if wanted else None
    if form is None:
        return {"type": "text"}
    if form.schema is None:
        return {"type": "json_object"}
    schema = orjson.Fragment(form.schema)
    return {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}


def _choice(choice: str | dict[str, str] | None) -> str | dict[str, str]:
    """As `chosen_tool` reads it, written as it was asked for."""
    return {"type": "function", "name": choice["only"]} if isinstance(choice, dict) else choice or "auto"
