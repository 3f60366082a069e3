"""The OpenAI wire formats of answers, whole and in chunks, for chat and for text completions."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from engine.types import ChatFinished, Completion, FinishReason, ModelStatus, Usage

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
    def piece_chunk(self, text: str) -> JsonObject: ...

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

    def whole(self, completions: Sequence[Completion]) -> JsonObject:
        choices = [
            _choice(
                index, "message", {"role": "assistant", "content": c.text, "refusal": None}, c.finish_reason
            )
            for index, c in enumerate(completions)
        ]
        return self._object("chat.completion", choices, *(c.usage for c in completions))

    def opening_chunks(self) -> Sequence[JsonObject]:
        return [self._chunk({"role": "assistant", "content": "", "refusal": None})]

    def piece_chunk(self, text: str) -> JsonObject:
        return self._chunk({"content": text})

    def closing_chunk(self, finish_reason: FinishReason) -> JsonObject:
        return self._chunk({}, finish_reason)

    def _chunk(self, delta: JsonObject, finish_reason: FinishReason | None = None) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(0, "delta", delta, finish_reason)])


class TextAnswer(Answer):
    id_prefix = "cmpl"
    chunk_kind = "text_completion"

    def whole(self, completions: Sequence[Completion]) -> JsonObject:
        choices = [_choice(i, "text", c.text, c.finish_reason) for i, c in enumerate(completions)]
        return self._object("text_completion", choices, *(c.usage for c in completions))

    def opening_chunks(self) -> Sequence[JsonObject]:
        return []

    def piece_chunk(self, text: str) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(0, "text", text, None)])

    def closing_chunk(self, finish_reason: FinishReason) -> JsonObject:
        return self._object(self.chunk_kind, [_choice(0, "text", "", finish_reason)])


def _choice(index: int, name: str, content: object, finish_reason: FinishReason | None) -> JsonObject:
    return {"index": index, name: content, "logprobs": None, "finish_reason": finish_reason}


def _total(usages: Sequence[Usage]) -> JsonObject:
    prompt = sum(usage.prompt_tokens for usage in usages)
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in usages)},
    }
