"""What the process that fetches a model says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PullProgress:
    doing: str
    done_bytes: int
    total_bytes: int | None
