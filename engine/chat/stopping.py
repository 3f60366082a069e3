"""Finds stop strings in a text that arrives in pieces, without ever letting part of one through."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Released:
    """text: what can no longer become part of a stop string. stopped: a stop string came right after it.

    rest: what came after the stop string.
    """

    text: str
    stopped: bool
    rest: str = ""


class StopFinder:
    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def feed(self, text: str) -> Released:
        """Take the next piece of the text."""
        if not self._stops:
            return Released(text, stopped=False)
        self._held += text
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            at, stop = min(found)
            text, self._held = self._held, ""
            return Released(text[:at], stopped=True, rest=text[at + len(stop) :])
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return Released(released, stopped=False)

    def flush(self) -> str:
        """The text has ended: what was held back was no stop string after all."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
