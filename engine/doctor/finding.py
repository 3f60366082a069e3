"""What one check says."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """state: "warn" works, but less well than it could; "fail" keeps something from working.

    what: what was found. what_to_do: a next step, if there is one; advice may stand beside "ok" too.
    """

    name: str
    state: State
    what: str
    what_to_do: str | None = None
