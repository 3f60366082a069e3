"""What every worker says first. Each kind of worker may extend Ready with facts of its own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ready:
    """The model is loaded; requests may come."""


@dataclass(frozen=True)
class LoadFailed:
    """The model cannot be loaded, and trying again will not help. The worker ends after this."""

    reason: str
