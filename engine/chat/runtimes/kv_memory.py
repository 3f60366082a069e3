"""The KV memory of all conversations: the caches in use, those that rest for the next turn, and their sum.

A new prompt takes over the resting cache with which it shares most; when room is needed, the cache that has
rested longest is dropped first. A runtime's cache cannot be copied or enlarged, only rewound and dropped.
"""

import operator
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Generic, Protocol, TypeVar


class KvCache(Protocol):
    """tokens: what it has read, in order. capacity: the most tokens it can hold."""

    tokens: list[int]
    capacity: int

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""

    def release(self) -> None:
        """Give the memory back to the system."""


C = TypeVar("C", bound=KvCache)


class KvMemory(Generic[C]):
    """budget_tokens: the most tokens that all caches together may hold."""

    def __init__(self, budget_tokens: int, create: Callable[[int], C]) -> None:
        self._budget = budget_tokens
        self._create = create
        self._reserved = 0
        self._resting: list[C] = []  # longest at rest first

    def take(self, tokens: Sequence[int], capacities: Sequence[int]) -> C | None:
        """A cache for these tokens, rewound to what it shares with them, or None when memory is short.

        capacities: what would be good, best first; the last one is what it must have.
        """
        return self._take_over(tokens, capacities[-1]) or self._make(capacities)

    def rest(self, cache: C) -> None:
        """The conversation pauses or has ended; another turn may come."""
        self._resting.append(cache)

    def forget(self) -> None:
        """Drop all that rest."""
        while self._resting:
            self.drop(self._resting.pop())

    def drop(self, cache: C) -> None:
        """Nobody will need this cache any more."""
        self._reserved -= cache.capacity
        cache.release()

    def _take_over(self, tokens: Sequence[int], capacity: int) -> C | None:
        """The resting cache that shares most, unless that would spoil it for the conversation it is from.

        A cache of 2,000 tokens is too good for a prompt that shares 20 tokens of system message with it.
        """
        candidates = [c for c in self._resting if c.capacity >= capacity]
        best = max(candidates, key=lambda c: common_prefix(c.tokens, tokens), default=None)
        if best is None:
            return None
        shared = common_prefix(best.tokens, tokens)
        if shared * 2 < len(best.tokens):
            return None
        self._resting.remove(best)
        # The last token is read again even if it is known: only reading yields logits.
        try:
            best.rewind(min(shared, len(tokens) - 1))
        except BaseException:
            self.drop(best)
            raise
        return best

    def _make(self, capacities: Sequence[int]) -> C | None:
        in_use = self._reserved - sum(cache.capacity for cache in self._resting)
        capacity = next((c for c in capacities if in_use + c <= self._budget), None)
        if capacity is None:
            return None
        while self._reserved + capacity > self._budget:
            self.drop(self._resting.pop(0))
        cache = self._create(capacity)
        self._reserved += capacity
        return cache


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens at the start are the same."""
    same = starmap(operator.eq, zip(one, other, strict=False))
    return next((n for n, equal in enumerate(same) if not equal), min(len(one), len(other)))
