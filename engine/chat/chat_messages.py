"""What the gateway and a chat worker say to each other.

gateway                                  worker
   | ChatOptions ------------------------> |
   | <------------------------------ ChatReady
   | Generate ---------------------------> |
   | <- Admitted, Happened*                |   or Ended at any point, with the error
   | Cancel -----------------------------> |   and nothing more comes
"""

from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError
from engine.types import ChatFinished, ChatPiece, ChatRequest, ChatToolCall
from engine.workers.handshake import Ready

AnswerEvent = ChatPiece | ChatToolCall | ChatFinished
"""What is seen of an answer after it has begun; the last one is ChatFinished."""


@dataclass(frozen=True)
class ChatOptions:
    """kv_bytes: for the keys and values of all conversations. context_tokens: None for what fits into them.

    rest_seconds: without work, until the memory of resting conversations is given back; None for never.
    answer_tokens: the most tokens of an answer whose request names no number.
    wait_seconds: for a place, that are bearable.
    speculate: check guesses at several tokens in one step.
    """

    folder: Path
    threads: int
    kv_bytes: int
    answer_tokens: int
    wait_seconds: float
    context_tokens: int | None = None
    rest_seconds: float | None = None
    speculate: bool = False


@dataclass(frozen=True)
class ChatReady(Ready):
    """context_tokens: the most tokens that a prompt and its answer may have together."""

    context_tokens: int


@dataclass(frozen=True)
class Generate:
    request_id: int
    request: ChatRequest


@dataclass(frozen=True)
class Cancel:
    """The caller has left. Harmless when the request has already ended."""

    request_id: int


@dataclass(frozen=True)
class Admitted:
    """The request is sound and has a place in the line. loosened: as in ChatStarted."""

    request_id: int
    loosened: tuple[str, ...] = ()


@dataclass(frozen=True)
class Happened:
    """Something of the answer."""

    request_id: int
    event: AnswerEvent


@dataclass(frozen=True)
class Ended:
    """The request ends with this error: instead of Admitted, or later when the runtime fails on it."""

    request_id: int
    error: EngineError


FromChatWorker = Admitted | Happened | Ended
