"""How long a conversation that arrives now will wait for a place, by how long others have kept theirs."""

import time
from collections import deque
from collections.abc import Callable

REMEMBERED = 32


class Turnover:
    """clock: in seconds, never going back."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began: dict[int, float] = {}
        self._stays: deque[float] = deque(maxlen=REMEMBERED)

    def began(self, request_id: int) -> None:
        """It has a place; one that had to give it up for a while has kept it all the time."""
        self._began.setdefault(request_id, self._clock())

    def ended(self, request_id: int) -> None:
        began = self._began.pop(request_id, None)
        if began is not None:
            self._stays.append(self._clock() - began)

    def wait_seconds(self, ahead: int) -> float:
        """Expected, for whoever has so many in front of them. 0 while nothing is known.

        With N places, one becomes free every N-th part of a stay. A stay is as long as the recent ones, or as
        those that go on now have lasted already.
        """
        now = self._clock()
        lasting = [now - began for began in self._began.values()]
        stay = max((sum(each) / len(each) for each in (self._stays, lasting) if each), default=0.0)
        return (ahead + 1) * stay / max(len(lasting), 1)
