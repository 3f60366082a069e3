"""The kinds of models, one row each: how an installed model of that kind is brought into memory."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType

from engine.chat.model import ChatModel
from engine.embedding.model import EmbeddingModel
from engine.hosting.stay import LoadedModel
from engine.models.store import InstalledModel
from engine.settings import Settings
from engine.types import ModelKind


@dataclass(frozen=True)
class Surroundings:
    """What a model may want to know of the others. chat_active: whether a chat is decoded on the CPU now."""

    settings: Settings
    chat_active: Callable[[], bool]


OpenModel = Callable[[InstalledModel, Surroundings], AbstractAsyncContextManager[LoadedModel]]

KINDS: Mapping[ModelKind, OpenModel] = MappingProxyType(
    {
        "embedding": lambda installed, around: EmbeddingModel.open(
            installed, around.settings, around.chat_active
        ),
        "chat": lambda installed, around: ChatModel.open(installed, around.settings),
    }
)
