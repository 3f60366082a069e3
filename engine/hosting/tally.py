"""How much a model has done since the gateway started, and how fast lately."""

import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 60


class Tally:
    """clock: in seconds, never going back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests = 0
        self.tokens = 0
        self._clock = clock
        self._recent: deque[tuple[int, int]] = deque()  # (a second, the tokens counted in it)

    def count_request(self) -> None:
        self.requests += 1

    def count_tokens(self, tokens: int) -> None:
        self.tokens += tokens
        second = int(self._clock())
        if self._recent and self._recent[-1][0] == second:
            tokens += self._recent.pop()[1]
        self._recent.append((second, tokens))
        self._forget(second)

    @property
    def tokens_per_second(self) -> float:
        """By how much `tokens` grew in the last minute, divided by that minute."""
        self._forget(int(self._clock()))
        return round(sum(tokens for _, tokens in self._recent) / WINDOW_SECONDS, 3)

    def _forget(self, now: int) -> None:
        while self._recent and self._recent[0][0] <= now - WINDOW_SECONDS:
            self._recent.popleft()
