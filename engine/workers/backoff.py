"""How long to wait before what has failed is tried again."""

FIRST_SECONDS = 0.5
MOST_SECONDS = 30.0


class Backoff:
    """Twice as long after each failure, up to a limit and for ever, until something works again."""

    def __init__(self, most_seconds: float = MOST_SECONDS) -> None:
        self._most_seconds = most_seconds
        self._next_seconds = FIRST_SECONDS

    def failed(self) -> float:
        """Seconds to wait now."""
        seconds = self._next_seconds
        self._next_seconds = min(2 * seconds, self._most_seconds)
        return seconds

    def worked(self) -> None:
        self._next_seconds = FIRST_SECONDS
