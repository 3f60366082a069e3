"""A chat runtime without a model: the token after n is n + 1, and what was read when is written down."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from engine.chat.conversation import Conversation
from engine.chat.runtimes.runtime import (
    Advanced,
    Logits,
    Outcome,
    OutOfMemory,
    SequenceFailed,
    SequenceWork,
    TokenSequence,
)
from engine.chat.vocabulary import Vocabulary
from engine.errors import EngineError
from engine.types import Sampling

END = 99
"""The token that ends an answer; 32 to 98 stand for their ASCII character."""

VOCABULARY = Vocabulary(
    json.dumps(
        {
            "decoder": {"type": "ByteFallback"},
            "model": {"vocab": {chr(n): n for n in range(32, END)}},
            "added_tokens": [{"id": END, "content": "</end>", "special": True}],
        }
    )
)


class FakeSequence:
    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.read = 0
        self.draft: tuple[int, ...] = ()
        self.cached_tokens = 0

    @property
    def unread(self) -> int:
        return max(len(self.tokens) - self.read, 0)

    def append(self, token: int) -> None:
        foreseen, self.draft = self.draft[:1], self.draft[1:]
        if foreseen != (token,):
            self.read, self.draft = len(self.tokens), ()
        self.tokens.append(token)


class FakeRuntime:
    """context_tokens: also the KV memory of all sequences together; a sequence takes what it has read.

    fail_on: reading this token fails.
    steps: per step, the first token of each sequence and how many tokens were read.
    """

    reads_drafts = True
    vocabulary_size = END + 1

    def __init__(self, *, context_tokens: int = 1000, fail_on: int | None = None) -> None:
        self.context_tokens = context_tokens
        self.steps: list[list[tuple[int, int]]] = []
        self.open_sequences: list[FakeSequence] = []
        self._fail_on = fail_on

    def open(self, tokens: Sequence[int], limit: int) -> FakeSequence | None:
        assert limit <= self.context_tokens
        if sum(s.read for s in self.open_sequences) + len(tokens) > self.context_tokens:
            return None
        self.open_sequences.append(FakeSequence(tokens))
        return self.open_sequences[-1]

    def close(self, sequence: TokenSequence) -> None:
        assert isinstance(sequence, FakeSequence)
        self.open_sequences.remove(sequence)

    def forget(self) -> None:
        pass

    def advance(self, work: Sequence[SequenceWork]) -> Iterator[Outcome]:
        self.steps.append([])
        for item in work:
            assert isinstance(item.sequence, FakeSequence)
            yield self._advance(item.sequence, item)

    def _advance(self, sequence: FakeSequence, work: SequenceWork) -> Outcome:
        slice_ = [*sequence.tokens[sequence.read : sequence.read + work.tokens], *work.draft]
        if self._fail_on in slice_:
            self.close(sequence)
            return SequenceFailed(sequence, EngineError("it broke"))
        if sum(s.read for s in self.open_sequences) + len(slice_) > self.context_tokens:
            self.close(sequence)
            return OutOfMemory(sequence)
        sequence.read += len(slice_)
        sequence.draft = work.draft
        self.steps[-1].append((sequence.tokens[0], len(slice_)))
        last = (sequence.tokens[-1], *work.draft)
        return Advanced(sequence, [] if sequence.unread else [one_hot(token + 1) for token in last])


def one_hot(token: int) -> Logits:
    logits = np.zeros(END + 1, dtype=np.float32)
    logits[min(token, END)] = 10
    return logits


def conversation(
    request_id: int,
    prompt: str,
    *,
    max_tokens: int | None = None,
    stop: tuple[str, ...] = (),
    context: int = 1000,
    speculates: bool = False,
) -> Conversation:
    return Conversation(
        request_id,
        [ord(c) for c in prompt],
        Sampling(temperature=0, max_tokens=max_tokens, stop=stop),
        context_tokens=context,
        answer_tokens=context,
        vocabulary=VOCABULARY,
        end_tokens={END},
        speculates=speculates,
    )
