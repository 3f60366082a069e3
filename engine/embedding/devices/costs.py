"""How long texts take on a device: measured once per machine and version, corrected by every run since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LENGTHS = (32, 64, 128, 256, 512)
"""Tokens. A text counts as the shortest of these that holds it; the NPU has a compiled graph for each."""

LEARNING_RATE = 0.1
"""Weight of the newest run in the correction."""

LEAST_CORRECTION, MOST_CORRECTION = 1 / 32, 32.0
"""A machine that saves energy, or is busy, takes several times as long. What goes further was not measured
rightly, and would keep a device out, or flood it, for thousands of batches.
"""


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
        """No effect for a time of 0 or less: nothing runs in no time, so its clock was wrong."""
        if actual_seconds <= 0 or expected_seconds <= 0:
            return
        correction = self._correction[chat_active] * (actual_seconds / expected_seconds) ** LEARNING_RATE
        self._correction[chat_active] = min(max(correction, LEAST_CORRECTION), MOST_CORRECTION)

    def _cost(self, length: int) -> Cost:
        """Of the shortest measured length that holds the text: an NPU may lack a graph for some of them."""
        longer = [size for size in self.costs if size >= length]
        return self.costs[min(longer, default=max(self.costs))]
