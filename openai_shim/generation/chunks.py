"""A streamed answer as chunks, which chat and text completions write each in their own form."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import ChatEvent, ChatFinished, Usage
from openai_shim.generation.reply import CompletionUsage, total_usage
from openai_shim.http import sse
from openai_shim.http.errors import Failure

Chunk = TypeVar("Chunk")


class NoUsage(TypedDict, total=False):
    """In every chunk before the one that has it, if one will: some parsers want every chunk alike."""

    usage: None


class Chunks(ABC, Generic[Chunk]):
    """Of one answer. choices: how many it has, those of the first prompt first; per_prompt: of one prompt.

    with_usage: after the end of the last choice comes what all have used.
    """

    def __init__(self, *, choices: int, per_prompt: int, with_usage: bool) -> None:
        self._choices = choices
        self._per_prompt = per_prompt
        self._with_usage = with_usage
        self._no_usage: NoUsage = {"usage": None} if with_usage else {}
        self._usages: dict[int, Usage] = {}

    @property
    def complete(self) -> bool:
        return len(self._usages) == self._choices

    @abstractmethod
    def opening(self) -> Sequence[Chunk]: ...

    @abstractmethod
    def of(self, choice: int, event: ChatEvent) -> Sequence[Chunk]: ...

    @abstractmethod
    def _usage_chunk(self, usage: CompletionUsage) -> Chunk: ...

    def _end(self, choice: int, usage: Usage) -> Iterable[Chunk]:
        self._usages[choice] = usage
        if self._with_usage and self.complete:
            in_order = [usage for _, usage in sorted(self._usages.items())]
            yield self._usage_chunk(total_usage(in_order, self._per_prompt))


class ChunkFrames(Generic[Chunk]):
    """Chunks as events without a name, and [DONE] after the last."""

    def __init__(self, chunks: Chunks[Chunk]) -> None:
        self._chunks = chunks

    def opening(self) -> bytes:
        return b"".join(map(sse.frame, self._chunks.opening()))

    def of(self, choice: int, event: ChatEvent) -> bytes:
        frames = b"".join(map(sse.frame, self._chunks.of(choice, event)))
        return frames + sse.DONE if isinstance(event, ChatFinished) and self._chunks.complete else frames

    def failed(self, failure: Failure) -> bytes:
        return sse.frame(failure.body())
