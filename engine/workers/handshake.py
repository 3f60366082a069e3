"""What every worker and the gateway say to each other, whatever the worker is for.

gateway                              worker
   | Assignment ---------------------> |   version and options, in types that every version can read
   | <------------------------- Ready  |   or LoadFailed; each kind may extend Ready with facts of its own
   | Ping ---------------------------> |
   | <-------------------------- Pong  |   from the loop that does the work
"""

import pickle
from dataclasses import dataclass
from typing import Any

from engine import __version__
from engine.workers.channel import Channel


@dataclass(frozen=True)
class Ready:
    """The model is loaded; requests may come."""


@dataclass(frozen=True)
class LoadFailed:
    """The model cannot be loaded. The worker ends after this."""

    reason: str


@dataclass(frozen=True)
class Ping:
    """Answered with Pong."""


@dataclass(frozen=True)
class Pong:
    """slowest_step_seconds: the longest that this worker has needed for what it cannot interrupt, lately."""

    slowest_step_seconds: float = 0.0


class OtherVersion(Exception):
    """The program on disk is no longer the one that runs: the two ends may not understand each other."""


def assign(channel: Channel, options: object) -> None:
    """The gateway's first message."""
    channel.send((__version__, pickle.dumps(options)))


def assigned(channel: Channel, pid: int) -> Any:
    """The worker's options. Answers with who it is. Raises OtherVersion."""
    version, options = _pair(channel)
    channel.send((__version__, pid))
    if version != __version__:
        raise OtherVersion(f"a gateway of version {version} started a worker of version {__version__}")
    return pickle.loads(options)  # noqa: S301 - written by our own parent


def introduced(channel: Channel) -> int:
    """The worker's process id: on Windows the process started may be a launcher. Raises OtherVersion."""
    version, pid = _pair(channel)
    if version != __version__:
        raise OtherVersion(
            f"npu-gateway was changed from version {__version__} to {version} while it ran; "
            "run `npu-gateway restart`"
        )
    return int(pid)


def _pair(channel: Channel) -> tuple[Any, Any]:
    match channel.receive():
        case (first, second):
            return first, second
        case other:
            raise OtherVersion(f"the other end began with {other!r}")
