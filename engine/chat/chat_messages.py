"""What the gateway and a chat worker say to each other.

gateway                                  worker
   | <------------------------------ ChatReady
   | Generate ---------------------------> |
   | <- Started, (Piece | Called)*, Finished   or Refused, at any point
   | Cancel -----------------------------> |   and nothing more comes
"""

from dataclasses import dataclass, field

from engine.errors import EngineError
from engine.types import ChatRequest, ChosenLogprob, FinishReason, ToolCall, Usage
from engine.workers.handshake import Ready


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
class Started:
    """The request is sound and has a place in the line."""

    request_id: int
    prompt_tokens: int


@dataclass(frozen=True)
class Piece:
    """Some whole characters of the answer. logprobs: of its tokens, if they were asked for."""

    request_id: int
    text: str
    logprobs: tuple[ChosenLogprob, ...] = ()


@dataclass(frozen=True)
class Called:
    """The assistant wants a tool to be called."""

    request_id: int
    call: ToolCall


@dataclass(frozen=True)
class Finished:
    """queue_seconds: until its prompt began to be read."""

    request_id: int
    finish_reason: FinishReason
    usage: Usage
    queue_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Refused:
    """The request ends with this error: instead of Started, or later when the runtime fails on it."""

    request_id: int
    error: EngineError


Reply = Started | Piece | Called | Finished | Refused
