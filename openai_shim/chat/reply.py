"""The OpenAI wire formats of answers, whole and in chunks, for chat and for text completions."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from engine.types import (
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
    """What every object of one reply has in common. created: Unix seconds.

    choices: how many there are, all those of the first prompt first. per_prompt: of one prompt.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str | None
    choices: int
    per_prompt: int

    id_prefix: ClassVar[str]
    chunk_kind: ClassVar[str]

    @classmethod
    def by(cls, model: ModelStatus, *, choices: int, per_prompt: int) -> Self:
        """The fingerprint changes when the same seed may give another answer: with the model's files."""
        return cls(
            id=f"{cls.id_prefix}-{secrets.token_hex(16)}",
            created=int(time.time()),
            model=model.id,
            system_fingerprint=f"fp_{model.revision[:12]}" if model.revision else None,
            choices=choices,
            per_prompt=per_prompt,
        )

    @abstractmethod
    def whole(self, completions: Sequence[Completion]) -> JsonObject:
        """One choice for each completion."""

    @abstractmethod
    def opening_chunks(self) -> Sequence[JsonObject]: ...

    @abstractmethod
    def piece_chunk(self, choice: int, piece: ChatPiece) -> JsonObject: ...

    @abstractmethod
    def call_chunk(self, choice: int, index: int, call: ToolCall) -> JsonObject:
        """index: of the call among those of its choice."""

    @abstractmethod
    def closing_chunk(self, choice: int, finish_reason: FinishReason) -> JsonObject: ...

    def usage_chunk(self, usages: Sequence[Usage]) -> JsonObject:
        """usages: of every choice, in order."""
        return self._object(self.chunk_kind, [], usages)

    def _object(self, kind: str, choices: Sequence[JsonObject], usages: Sequence[Usage] = ()) -> JsonObject:
        head: JsonObject = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
            "choices": choices,
        }
        return head | {"usage": _total(usages, self.per_prompt)} if usages else head


class ChatAnswer(Answer):
    id_prefix = "chatcmpl"
    chunk_kind = "chat.completion.chunk"

    def whole(self, completions: Sequence[Completion]) -> JsonObject:
        choices = [
            _choice(index, "message", self._message(each), self._reason(each.finish_reason), each.logprobs)
            for index, each in enumerate(completions)
        ]
        return self._object("chat.completion", choices, [each.usage for each in completions])

    def opening_chunks(self) -> Sequence[JsonObject]:
        role: JsonObject = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(choice, role) for choice in range(self.choices)]

    def piece_chunk(self, choice: int, piece: ChatPiece) -> JsonObject:
        return self._chunk(choice, {"content": piece.text}, logprobs=piece.logprobs)

    def call_chunk(self, choice: int, index: int, call: ToolCall) -> JsonObject:
        return self._chunk(choice, {"tool_calls": [{"index": index} | _tool_call(call)]})

    def closing_chunk(self, choice: int, finish_reason: FinishReason) -> JsonObject:
        return self._chunk(choice, {}, self._reason(finish_reason))

    def _chunk(
        self,
        choice: int,
        delta: JsonObject,
        finish_reason: str | None = None,
        logprobs: Sequence[ChosenLogprob] = (),
    ) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(choice, "delta", delta, finish_reason, logprobs)])

    def _message(self, answer: Completion) -> JsonObject:
        """Without text, an answer that calls tools has no content at all, as OpenAI's."""
        message: JsonObject = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.tool_calls:
            message |= {"content": answer.text or None} | self._calls(answer.tool_calls)
        return message

    def _calls(self, calls: Sequence[ToolCall]) -> JsonObject:
        return {"tool_calls": [_tool_call(call) for call in calls]}

    def _reason(self, finish_reason: FinishReason) -> str:
        return finish_reason


class FunctionAnswer(ChatAnswer):
    """To a request with `functions`, from before there were tools: one call at most, and it has no id."""

    def call_chunk(self, choice: int, index: int, call: ToolCall) -> JsonObject:
        return self._chunk(choice, self._calls([call]))

    def _calls(self, calls: Sequence[ToolCall]) -> JsonObject:
        (call,) = calls
        return {"function_call": _function(call)}

    def _reason(self, finish_reason: FinishReason) -> str:
        return "function_call" if finish_reason == "tool_calls" else finish_reason


class TextAnswer(Answer):
    id_prefix = "cmpl"
    chunk_kind = "text_completion"

    def whole(self, completions: Sequence[Completion]) -> JsonObject:
        choices = [_choice(i, "text", c.text, c.finish_reason) for i, c in enumerate(completions)]
        return self._object("text_completion", choices, [c.usage for c in completions])

    def opening_chunks(self) -> Sequence[JsonObject]:
        return []

    def piece_chunk(self, choice: int, piece: ChatPiece) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(choice, "text", piece.text, None)])

    def call_chunk(self, choice: int, index: int, call: ToolCall) -> JsonObject:
        raise AssertionError("a text completion has no tools")

    def closing_chunk(self, choice: int, finish_reason: FinishReason) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(choice, "text", "", finish_reason)])


def _tool_call(call: ToolCall) -> JsonObject:
    return {"id": call.id, "type": "function", "function": _function(call)}


def _function(call: ToolCall) -> JsonObject:
    return {"name": call.name, "arguments": call.arguments}


def _choice(
    index: int,
    name: str,
    content: object,
    finish_reason: str | None,
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


def _total(usages: Sequence[Usage], per_prompt: int) -> JsonObject:
    """usages: of every choice, in order. A prompt that has several counts once."""
    of_prompts = usages[::per_prompt]
    prompt = sum(usage.prompt_tokens for usage in of_prompts)
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in of_prompts)},
    }
