"""The engine: every model of this machine behind two verbs, embed and chat.

    async with Engine.start(settings) as engine:
        vectors = (await engine.embed(EmbedRequest(("a text",)))).vectors

A request flows from here to the model (tokenising, queueing), to its worker process and back. Models come up
in the background: `start` returns at once, and a request waits for its model while it loads. Which models are
in memory is up to `engine.hosting`.
"""

import contextlib
import os
import time
from collections.abc import AsyncGenerator
from typing import TypeVar

import psutil

from engine import __version__
from engine.chat.model import ChatModel
from engine.embedding.devices.npu import SEARCHING
from engine.embedding.model import EmbeddingModel
from engine.errors import BadInput
from engine.hosting.fleet import Fleet
from engine.hosting.hosted import HostedModel
from engine.hosting.tally import Tally
from engine.settings import Settings
from engine.tokenization import Codec, Codecs
from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    ChatToolCall,
    ChosenLogprob,
    Completion,
    Embeddings,
    EmbeddingWork,
    EmbedRequest,
    Health,
    MemoryStatus,
    ModelKind,
    ModelStatus,
    NpuStatus,
    QueueStatus,
    ToolCall,
)

NOT_SEARCHED = NpuStatus(available=False, emulated=False, name=None, reason="no embedding model is loaded")

M = TypeVar("M")


class Engine:
    """One per machine; `async with Engine.start(settings)`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._fleet = Fleet(settings)
        self._codecs = Codecs()
        self._started_at = time.monotonic()

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, settings: Settings) -> AsyncGenerator["Engine"]:
        engine = cls(settings)
        async with engine._fleet.running():
            for kind in ("embedding", "chat"):
                engine._fleet.hosted(engine.default_model(kind)).start()
            yield engine

    def default_model(self, kind: ModelKind) -> str:
        """The id that a request without a model gets."""
        return self._fleet.default(kind)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Raises BadInput, ContextTooLong, ModelNotFound, Unavailable, WorkerCrashed."""
        hosted = self._asked(request.model, "embedding")
        async with self._in_use(hosted, EmbeddingModel) as model:
            result = await model.embed(request)
        hosted.tally.count_request()
        hosted.tally.count_tokens(sum(result.token_counts))
        return result

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """ChatStarted, some ChatPiece, ChatFinished. Closing the generator cancels the conversation.

        Raises, before the first event, BadInput, ContextTooLong, ModelNotFound, Unavailable; later
        WorkerCrashed.
        """
        hosted = self._asked(request.model, "chat")
        pieces = 0
        async with (
            self._in_use(hosted, ChatModel) as model,
            contextlib.aclosing(model.stream(request)) as events,
        ):
            async for event in events:
                pieces += isinstance(event, ChatPiece)
                _count(event, hosted.tally, pieces=pieces)
                yield event

    async def complete(self, request: ChatRequest) -> Completion:
        """The same conversation as one value."""
        text: list[str] = []
        logprobs: list[ChosenLogprob] = []
        calls: list[ToolCall] = []
        started: ChatStarted | None = None
        async with contextlib.aclosing(self.chat(request)) as events:
            async for event in events:
                match event:
                    case ChatStarted():
                        started = event
                    case ChatPiece(piece, of_piece):
                        text.append(piece)
                        logprobs += of_piece
                    case ChatToolCall(call):
                        calls.append(call)
                    case ChatFinished(finish_reason, usage, queue_seconds):
                        assert started is not None
                        return Completion(
                            started.model,
                            started.device,
                            "".join(text),
                            finish_reason,
                            usage,
                            tuple(logprobs),
                            tuple(calls),
                            queue_seconds,
                            started.revision,
                            started.loosened,
                        )
        raise AssertionError("a conversation ended without its last event")

    async def load(self, model_id: str) -> ModelStatus:
        """Returns when the model is in memory.

        Raises ModelNotFound; Unavailable during a download, and with what kept the model from loading.
        """
        model_id = self._aliased(model_id)
        await self._fleet.hosted(model_id).load()
        return self._fleet.status(model_id)

    async def unload(self, model_id: str) -> ModelStatus:
        """Give the model's memory back: before this returns, or when the last running request has ended.

        The next request loads it again. Raises ModelNotFound.
        """
        model_id = self._aliased(model_id)
        await self._fleet.hosted(model_id).unload()
        return self._fleet.status(model_id)

    async def codec(self, model: str | None) -> Codec:
        """The tokenizer of an installed model, by default of the chat model. Raises ModelNotFound."""
        wanted = self.default_model("chat") if model is None else self._aliased(model)
        return await self._codecs.of(self._fleet.catalogue.require(wanted))

    def models(self) -> tuple[ModelStatus, ...]:
        """The installed models, and those that are still on their way or failed to come."""
        return self._fleet.statuses()

    def model(self, model_id: str) -> ModelStatus:
        """Raises ModelNotFound."""
        return self._fleet.status(self._aliased(model_id))

    def health(self) -> Health:
        models = self.models()
        states = {status.state for status in models}
        embedding, chat = (tuple(self._fleet.in_memory(kind)) for kind in ("embedding", "chat"))
        degraded = "failed" in states or any(model.degraded for model in (*embedding, *chat))
        searching = SEARCHING if self._fleet.loading("embedding") else NOT_SEARCHED
        return Health(
            status="degraded" if degraded else "loading" if "loading" in states else "ok",
            version=__version__,
            uptime_seconds=round(time.monotonic() - self._started_at, 3),
            npu=next((model.npu for model in embedding if model.npu), searching),
            models=models,
            memory=MemoryStatus(_rss_bytes(os.getpid()) + sum(status.rss_bytes for status in models)),
            queue=QueueStatus(
                embedding=sum(model.in_flight for model in embedding),
                chat=sum(model.in_flight for model in chat),
            ),
        )

    def embedding_work(self) -> tuple[EmbeddingWork, ...]:
        """What the loaded embedding models have done since they were loaded."""
        return tuple(model.work for model in self._fleet.in_memory("embedding") if model.work)

    def preparing(self) -> bool:
        """Whether a model still comes up, or graphs for the NPU are still being compiled."""
        return any(status.state == "loading" for status in self.models()) or any(
            model.preparing for model in self._fleet.in_memory("embedding")
        )

    def _asked(self, wanted: str | None, kind: ModelKind) -> HostedModel:
        """The installed or arriving model of this kind. Raises ModelNotFound or BadInput."""
        model_id = self.default_model(kind) if wanted is None else self._aliased(wanted)
        hosted = self._fleet.hosted(model_id)
        if hosted.kind != kind:
            raise BadInput(f"{model_id!r} is a model for {hosted.kind}, not for {kind}.", field="model")
        return hosted

    @contextlib.asynccontextmanager
    async def _in_use(self, hosted: HostedModel, kind: type[M]) -> AsyncGenerator[M]:
        async with hosted.in_use() as model:
            assert isinstance(model, kind), model
            yield model

    def _aliased(self, model_id: str) -> str:
        return self.settings.aliases.get(model_id, model_id)


def _count(event: ChatEvent, tally: Tally, *, pieces: int) -> None:
    """A piece is at least one token, so a long answer counts while it is written; the end tells the rest.

    pieces: how many have come, this one included.
    """
    match event:
        case ChatStarted():
            tally.count_request()
        case ChatPiece():
            tally.count_tokens(1)
        case ChatFinished(usage=usage):
            tally.count_tokens(usage.prompt_tokens + usage.completion_tokens - pieces)


def _rss_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)
