"""What /v1/chat/completions answers, whole and in chunks."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine import types as engine_types
from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatStarted,
    ChatToolCall,
    Completion,
    FinishReason,
)
from openai_shim.chat.request import ChatCompletionRequest
from openai_shim.generation.chunks import Chunks
from openai_shim.generation.reply import CompletionUsage, fingerprint, new_id, total_usage


class TokenLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChoiceLogprobs(TypedDict):
    content: list[ChosenLogprob]
    refusal: None


class Function(TypedDict):
    name: str
    arguments: str


class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: Function


class ToolCallDelta(ToolCall):
    index: int


ChatFinishReason = FinishReason | Literal["function_call"]
"""The last one answers requests with `functions`."""


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[ToolCall]]
    function_call: NotRequired[Function]


class ChatChoice(TypedDict):
    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: ChatFinishReason


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: CompletionUsage


class Delta(TypedDict, total=False):
    role: Literal["assistant"]
    content: str
    refusal: None
    tool_calls: list[ToolCallDelta]
    function_call: Function


class ChunkChoice(TypedDict):
    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None
    finish_reason: ChatFinishReason | None


class ChunkHead(TypedDict):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str | None
    usage: NotRequired[CompletionUsage | None]


class ChatCompletionChunk(ChunkHead):
    choices: list[ChunkChoice]


def chat_completion(wanted: ChatCompletionRequest, completions: Sequence[Completion]) -> ChatCompletion:
    """One choice for each completion."""
    first = completions[0]
    choices = [_choice(index, each, bool(wanted.functions)) for index, each in enumerate(completions)]
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": first.model,
        "system_fingerprint": fingerprint(first.revision),
        "choices": choices,
        "usage": total_usage([each.usage for each in completions], per_prompt=len(completions)),
    }


class ChatChunks(Chunks[ChatCompletionChunk]):
    def __init__(self, wanted: ChatCompletionRequest, started: ChatStarted) -> None:
        super().__init__(
            choices=wanted.choices, per_prompt=wanted.choices, with_usage=wanted.wants_usage_chunk
        )
        self._head: ChunkHead = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": started.model,
            "system_fingerprint": fingerprint(started.revision),
        }
        self._by_function = bool(wanted.functions)
        self._calls: Counter[int] = Counter()

    def opening(self) -> Sequence[ChatCompletionChunk]:
        role: Delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(choice, role) for choice in range(self._choices)]

    def of(self, choice: int, event: ChatEvent) -> Sequence[ChatCompletionChunk]:
        match event:
            case ChatPiece(text, logprobs):
                return [self._chunk(choice, {"content": text}, _logprobs(logprobs) if logprobs else None)]
            case ChatToolCall(call):
                return [self._chunk(choice, self._call(choice, call))]
            case ChatFinished(finish_reason, usage):
                reason = _reason(finish_reason, self._by_function)
                return [self._chunk(choice, {}, finish_reason=reason), *self._end(choice, usage)]
            case _:
                raise AssertionError(f"unexpected in the middle of a conversation: {event}")

    def _call(self, choice: int, call: engine_types.ToolCall) -> Delta:
        if self._by_function:
            return {"function_call": _function(call)}
        self._calls[choice] += 1
        return {"tool_calls": [{"index": self._calls[choice] - 1, **_tool_call(call)}]}

    def _usage_chunk(self, usage: CompletionUsage) -> ChatCompletionChunk:
        return {**self._head, "choices": [], "usage": usage}

    def _chunk(
        self,
        choice: int,
        delta: Delta,
        logprobs: ChoiceLogprobs | None = None,
        finish_reason: ChatFinishReason | None = None,
    ) -> ChatCompletionChunk:
        written: ChunkChoice = {
            "index": choice,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return {**self._head, "choices": [written], **self._no_usage}


def _choice(index: int, completion: Completion, by_function: bool) -> ChatChoice:
    return {
        "index": index,
        "message": _message(completion, by_function),
        "logprobs": _logprobs(completion.logprobs) if completion.logprobs else None,
        "finish_reason": _reason(completion.finish_reason, by_function),
    }


def _message(completion: Completion, by_function: bool) -> AssistantMessage:
    """Without text, an answer that calls tools has no content at all, as OpenAI's."""
    calls = completion.tool_calls
    message: AssistantMessage = {"role": "assistant", "content": completion.text, "refusal": None}
    if calls and not completion.text:
        message["content"] = None
    if calls and by_function:
        (call,) = calls
        message["function_call"] = _function(call)
    elif calls:
        message["tool_calls"] = [_tool_call(call) for call in calls]
    return message


def _reason(finish_reason: FinishReason, by_function: bool) -> ChatFinishReason:
    """by_function: the request had `functions`, from before there were tools: one call, which has no id."""
    return "function_call" if by_function and finish_reason == "tool_calls" else finish_reason


def _tool_call(call: engine_types.ToolCall) -> ToolCall:
    return {"id": call.id, "type": "function", "function": _function(call)}


def _function(call: engine_types.ToolCall) -> Function:
    return {"name": call.name, "arguments": call.arguments}


def _logprobs(logprobs: Sequence[engine_types.ChosenLogprob]) -> ChoiceLogprobs:
    return {"content": [_chosen(each) for each in logprobs], "refusal": None}


def _chosen(logprob: engine_types.ChosenLogprob) -> ChosenLogprob:
    return {**_token(logprob.chosen), "top_logprobs": [_token(each) for each in logprob.top]}


def _token(logprob: engine_types.TokenLogprob) -> TokenLogprob:
    """bytes: the truth, where a token is half a character. JSON has no infinity: OpenAI writes -9999."""
    return {
        "token": logprob.token.decode(errors="replace"),
        "logprob": max(logprob.logprob, -9999.0),
        "bytes": list(logprob.token),
    }
