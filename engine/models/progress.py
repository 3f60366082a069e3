"""How slow work on models tells what it is doing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, units done, units in all or None if unknown), from the working thread.

The unit is bytes wherever bytes move. A new first argument means that a new step has begun.
"""


def silent(doing: str, done: int, total: int | None) -> None:
    """A Progress for callers that show none."""


@dataclass(frozen=True)
class PullOptions:
    """Of the process that fetches a model for the gateway. models: the folder of the store."""

    models: Path
    model_id: str


@dataclass(frozen=True)
class PullProgress:
    """The same, from the process that fetches a model to the gateway."""

    doing: str
    done_bytes: int
    total_bytes: int | None
