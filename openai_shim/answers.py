"""The OpenAI wire formats of answers, whole and in chunks, for chat and for text completions."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from engine.types import (
    ChatFinished,
    ChatPiece,
    ChosenLogprob,
    Completion,
    FinishReason,
    ModelStatus,
    TokenLogprob,
    ToolCall,
    Usage,
)

JsonObject = dict[str, object]


@dataclass(frozen=True)
class Answer(ABC):
    """What every object of one reply has in common. created: Unix seconds."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None

    id_prefix: ClassVar[str]
    chunk_kind: ClassVar[str]
    operation: ClassVar[Literal["chat", "text_completion"]]
    """As OpenTelemetry calls it."""

    @classmethod
    def by(cls, model: ModelStatus) -> Self:
        """The fingerprint changes when the same seed may give another answer: with the model's files."""
        return cls(
            id=f"{cls.id_prefix}-{secrets.token_hex(16)}",
            created=int(time.time()),
            model=model.id,
            system_fingerprint=f"fp_{model.revision[:12]}" if model.revision else None,
        )

    @abstractmethod
    def whole(self, completions: Sequence[Completion]) -> JsonObject:
        """One choice for each completion."""

    @abstractmethod
    def opening_chunks(self) -> Sequence[JsonObject]: ...

    @abstractmethod
    def piece_chunk(self, piece: ChatPiece) -> JsonObject: ...

    @abstractmethod
    def call_chunk(self, index: int, call: ToolCall) -> JsonObject: ...

    @abstractmethod
    def closing_chunk(self, finish_reason: FinishReason) -> JsonObject: ...

    def usage_chunk(self, finished: ChatFinished) -> JsonObject:
        return self._object(self.chunk_kind, [], finished.usage)

    def _object(self, kind: str, choices: Sequence[JsonObject], *usages: Usage) -> JsonObject:
        head: JsonObject = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
            "choices": choices,
        }
        return head | {"usage": _total(usages)} if usages else head


class ChatAnswer(Answer):
    id_prefix = "chatcmpl"
    chunk_kind = "chat.completion.chunk"
    operation = "chat"

    def whole(self, completions: Sequence[Completion]) -> JsonObject:
        choices = [
            _choice(index, "message", _message(answer), answer.finish_reason, answer.logprobs)
            for index, answer in enumerate(completions)
        ]
        return self._object("chat.completion", choices, _usage_of_choices(completions))

    def opening_chunks(self) -> Sequence[JsonObject]:
        return [self._chunk({"role": "assistant", "content": "", "refusal": None})]

    def piece_chunk(self, piece: ChatPiece) -> JsonObject:
        return self._chunk({"content": piece.text}, logprobs=piece.logprobs)

    def call_chunk(self, index: int, call: ToolCall) -> JsonObject:
        return self._chunk({"tool_calls": [{"index": index} | _tool_call(call)]})

    def closing_chunk(self, finish_reason: FinishReason) -> JsonObject:
        return self._chunk({}, finish_reason)

    def _chunk(
        self,
        delta: JsonObject,
        finish_reason: FinishReason | None = None,
        logprobs: Sequence[ChosenLogprob] = (),
    ) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(0, "delta", delta, finish_reason, logprobs)])


class TextAnswer(Answer):
    id_prefix = "cmpl"
    chunk_kind = "text_completion"
    operation = "text_completion"

    def whole(self, completions: Sequence[Completion]) -> JsonObject:
        choices = [_choice(i, "text", c.text, c.finish_reason) for i, c in enumerate(completions)]
        return self._object("text_completion", choices, *(c.usage for c in completions))

    def opening_chunks(self) -> Sequence[JsonObject]:
        return []

    def piece_chunk(self, piece: ChatPiece) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(0, "text", piece.text, None)])

    def call_chunk(self, index: int, call: ToolCall) -> JsonObject:
        raise AssertionError("a text completion has no tools")

    def closing_chunk(self, finish_reason: FinishReason) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(0, "text", "", finish_reason)])


def _message(answer: Completion) -> JsonObject:
    """Without text, an answer that calls tools has no content at all, as OpenAI's."""
    message: JsonObject = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [_tool_call(call) for call in answer.tool_calls]
    return message


def _tool_call(call: ToolCall) -> JsonObject:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _usage_of_choices(completions: Sequence[Completion]) -> Usage:
    """Several choices for one prompt: it counts once."""
    first = completions[0].usage
    return replace(first, completion_tokens=sum(answer.usage.completion_tokens for answer in completions))


def _choice(
    index: int,
    name: str,
    content: object,
    finish_reason: FinishReason | None,
    logprobs: Sequence[ChosenLogprob] = (),
) -> JsonObject:
    return {
        "index": index,
        name: content,
        "logprobs": {"content": [_chosen(each) for each in logprobs], "refusal": None} if logprobs else None,
        "finish_reason": finish_reason,
    }


def _chosen(logprob: ChosenLogprob) -> JsonObject:
    return _token(logprob.chosen) | {"top_logprobs": [_token(each) for each in logprob.top]}


def _token(logprob: TokenLogprob) -> JsonObject:
    """bytes: the truth, where a token is half a character. JSON has no infinity: OpenAI writes -9999."""
    return {
        "token": logprob.token.decode(errors="replace"),
        "logprob": max(logprob.logprob, -9999.0),
        "bytes": list(logprob.token),
    }


def _total(usages: Sequence[Usage]) -> JsonObject:
    prompt = sum(usage.prompt_tokens for usage in usages)
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in usages)},
    }
