"""How long texts take on a device: measured once per machine and version, corrected by every run since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LENGTHS = (32, 64, 128, 256, 512)
"""Tokens. A text counts as the shortest of these that holds it; the NPU has a compiled graph for each."""

LEARNING_RATE = 0.1
"""Weight of the newest run in the correction."""


@dataclass(frozen=True)
class Cost:
    """Seconds for the first text of a batch and for each further one."""

    first_seconds: float
    next_seconds: float


def bucket(length: int) -> int:
    """The shortest of LENGTHS that holds a text of so many tokens."""
    return next(size for size in LENGTHS if size >= length)


class CostTable:
    """The costs of one device, for some of LENGTHS.

    What later runs teach is kept apart for the time in which chat decodes on the CPU.
    """

    def __init__(self, costs: Mapping[int, Cost]) -> None:
        self.costs = dict(costs)
        self._correction = {False: 1.0, True: 1.0}

    def batch_seconds(self, lengths: Sequence[int], *, chat_active: bool) -> float:
        """Expected time of one batch; `lengths` in tokens, not empty."""
        first = self._cost(max(lengths))
        further = sum(self._cost(length).next_seconds for length in lengths) - first.next_seconds
        return (first.first_seconds + further) * self._correction[chat_active]

    def backlog_seconds(self, waiting: Mapping[int, int], *, chat_active: bool) -> float:
        """Expected time for so many texts of each bucket."""
        seconds = sum(self._cost(size).next_seconds * count for size, count in waiting.items())
        return seconds * self._correction[chat_active]

    def learn(self, expected_seconds: float, actual_seconds: float, *, chat_active: bool) -> None:
        ratio = actual_seconds / expected_seconds
        before = self._correction[chat_active]
        self._correction[chat_active] = before * ratio**LEARNING_RATE

    def _cost(self, length: int) -> Cost:
        """Of the shortest measured length that holds the text: an NPU may lack a graph for some of them."""
        longer = [size for size in self.costs if size >= length]
        return self.costs[min(longer, default=max(self.costs))]
