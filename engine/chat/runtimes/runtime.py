"""What the scheduler needs of whatever runs the model: sets of token sequences, advanced step by step.

A runtime may compute the sequences of a step one after another or in one batch; the scheduler cannot tell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError

Logits = NDArray[np.float32]
"""[vocabulary]: one score per token that could come next."""


class TokenSequence(Protocol):
    """The tokens of one conversation, and how many of them the model has read."""

    @property
    def cached_tokens(self) -> int:
        """How many tokens at its start were in memory already when it was opened."""

    @property
    def unread(self) -> int:
        """How many tokens the model must still read before it can say what comes next."""

    def append(self, token: int) -> None: ...


@dataclass(frozen=True)
class SequenceWork:
    """Let the model read the next so many unread tokens of this sequence, and then the draft.

    draft: a guess at the tokens that will come next, for a sequence with one unread token and a runtime that
    reads drafts; it is not part of the sequence. A runtime may shorten it.
    """

    sequence: TokenSequence
    tokens: int
    draft: tuple[int, ...] = ()


@dataclass(frozen=True)
class Advanced:
    """logits: for the token after the last one, and after each token of the draft; empty while there are
    unread tokens."""

    sequence: TokenSequence
    logits: Sequence[Logits]


@dataclass(frozen=True)
class OutOfMemory:
    """The sequence has outgrown its KV memory and there is no more now; it is closed."""

    sequence: TokenSequence


@dataclass(frozen=True)
class SequenceFailed:
    """The runtime cannot go on with this sequence; it is closed."""

    sequence: TokenSequence
    error: EngineError


Outcome = Advanced | OutOfMemory | SequenceFailed


class Runtime(Protocol):
    @property
    def context_tokens(self) -> int:
        """The longest sequence it can hold when it holds no other."""

    @property
    def vocabulary_size(self) -> int:
        """Length of its logits."""

    @property
    def reads_drafts(self) -> bool:
        """Whether it can say what comes after each token of a draft."""

    def open(self, tokens: Sequence[int], limit: int) -> TokenSequence | None:
        """Begin a sequence that will never have more than `limit` tokens; None while KV memory is short.

        Raises EngineError.
        """

    def advance(self, work: Sequence[SequenceWork]) -> Iterator[Outcome]:
        """One outcome per piece of work, in the order in which they are ready."""

    def close(self, sequence: TokenSequence) -> None:
        """Its memory may be reused from now on."""

    def forget(self) -> None:
        """Give back to the system what closed sequences have left for their next turn."""
