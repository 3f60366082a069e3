"""What the user of a chat template and the process that runs it say to each other.

user                                 process
   | TemplateOptions ---------------> |
   | <------------------------- Ready |   or LoadFailed
   | Render ------------------------> |
   | <---------------------- Rendered |   or Declined; or it ends, because a limit was passed
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TemplateOptions:
    """folder: of the model. load_seconds: after so long the process ends."""

    folder: Path
    load_seconds: float


@dataclass(frozen=True)
class Render:
    """messages_json: an array of {"role", "content"}. seconds: after so long the process ends."""

    messages_json: str
    seconds: float
    most_characters: int


@dataclass(frozen=True)
class Rendered:
    prompt: str


@dataclass(frozen=True)
class Declined:
    """reason: what the template itself says about these messages."""

    reason: str
