"""What a chat worker or a scheduler says, as pairs of a request's id and what its caller sees."""

from collections.abc import Iterable
from typing import TypeVar

from engine.chat.chat_messages import Admitted, Ended, FromChatWorker, Happened
from engine.errors import EngineError
from engine.types import ChatFinished, ChatPiece, ChatToolCall

Seen = Admitted | ChatPiece | ChatToolCall | ChatFinished | EngineError
Seens = list[tuple[int, Seen]]
S = TypeVar("S")


def seen(message: FromChatWorker) -> tuple[int, Seen]:
    match message:
        case Happened(request_id, event):
            return request_id, event
        case Ended(request_id, error):
            return request_id, error
        case Admitted(request_id):
            return request_id, message


def of(request_id: int, pairs: Seens) -> list[Seen]:
    return [what for whose, what in pairs if whose == request_id]


def only(kind: type[S], whats: Iterable[object]) -> list[S]:
    return [what for what in whats if isinstance(what, kind)]


def text_of(request_id: int, pairs: Seens) -> str:
    return "".join(piece.text for piece in only(ChatPiece, of(request_id, pairs)))


def whose(kind: type[object], pairs: Seens) -> list[int]:
    """The ids of the requests of which something of this kind was seen, in its order."""
    return [request_id for request_id, what in pairs if isinstance(what, kind)]
