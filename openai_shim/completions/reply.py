"""What /v1/completions answers, whole and in chunks."""

import time
from collections.abc import Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import ChatEvent, ChatFinished, ChatPiece, ChatStarted, Completion, FinishReason
from openai_shim.completions.request import CompletionRequest
from openai_shim.generation.chunks import Chunks
from openai_shim.generation.reply import CompletionUsage, fingerprint, new_id, total_usage


class TextChoice(TypedDict):
    index: int
    text: str
    logprobs: None
    finish_reason: FinishReason | None


class TextHead(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    usage: NotRequired[CompletionUsage | None]


class TextCompletion(TextHead):
    choices: list[TextChoice]


def text_completion(wanted: CompletionRequest, completions: Sequence[Completion]) -> TextCompletion:
    """One choice for each completion."""
    first = completions[0]
    return {
        **_head(first.model, first.revision),
        "choices": [_choice(index, c.text, c.finish_reason) for index, c in enumerate(completions)],
        "usage": total_usage([c.usage for c in completions], per_prompt=wanted.choices),
    }


class TextChunks(Chunks[TextCompletion]):
    def __init__(self, wanted: CompletionRequest, started: ChatStarted) -> None:
        choices = len(wanted.prompt) * wanted.choices
        super().__init__(choices=choices, per_prompt=wanted.choices, with_usage=wanted.wants_usage_chunk)
        self._head = _head(started.model, started.revision)

    def opening(self) -> Sequence[TextCompletion]:
        return []

    def of(self, choice: int, event: ChatEvent) -> Sequence[TextCompletion]:
        match event:
            case ChatPiece(text):
                return [self._chunk(_choice(choice, text, None))]
            case ChatFinished(finish_reason, usage):
                closing = self._chunk(_choice(choice, "", finish_reason))
                return [closing, *self._end(choice, usage)]
            case _:
                raise AssertionError(f"unexpected in a text completion: {event}")

    def _chunk(self, choice: TextChoice) -> TextCompletion:
        return {**self._head, "choices": [choice], **self._no_usage}

    def _usage_chunk(self, usage: CompletionUsage) -> TextCompletion:
        return {**self._head, "choices": [], "usage": usage}


def _head(model: str, revision: str | None) -> TextHead:
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint(revision),
    }


def _choice(index: int, text: str, finish_reason: FinishReason | None) -> TextChoice:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
