"""The engine: every model of this machine behind two verbs, embed and chat.

    async with Engine.start(settings) as engine:
        vectors = (await engine.embed(EmbedRequest(("a text",)))).vectors

A request flows from here to the model (tokenising, queueing), to its worker process and back. Models come up
in the background: `start` returns at once, and a request waits for its model while it loads.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator

import psutil

from engine import __version__
from engine.chat.model import ChatModel
from engine.embedding.model import EmbeddingModel
from engine.embedding.npu_device import SEARCHING
from engine.errors import BadInput
from engine.models.fetch import fetch
from engine.models.registry import MODELS, find
from engine.models.store import InstalledModel, ModelStore
from engine.resident import Report, Resident
from engine.settings import Settings
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
    EmbedRequest,
    Health,
    MemoryStatus,
    ModelKind,
    ModelStatus,
    QueueStatus,
    ToolCall,
)

PREFERRED_CHAT = "phi-3-mini-4k-instruct"

RETRY_SECONDS = 30.0
"""A model that could not be fetched or loaded is tried again by the first request after so long."""


class Engine:
    """One per machine; `async with Engine.start(settings)`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = ModelStore(settings.home.models)
        self._started_at = time.monotonic()
        self._embedding: dict[str, Resident[EmbeddingModel]] = {}
        self._chat: dict[str, Resident[ChatModel]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, settings: Settings) -> AsyncGenerator["Engine"]:
        engine = cls(settings)
        engine._embedding_resident(engine.default_model("embedding"))
        engine._chat_resident(engine.default_model("chat"))
        try:
            yield engine
        finally:
            await asyncio.gather(
                *(resident.release() for resident in engine._embedding.values()),
                *(resident.release() for resident in engine._chat.values()),
            )

    def default_model(self, kind: ModelKind) -> str:
        """The id that a request without a model gets."""
        if kind == "embedding":
            return self.settings.embed
        if self.settings.chat:
            return self.settings.chat
        if self.store.get(PREFERRED_CHAT):
            return PREFERRED_CHAT
        return next(spec.id for spec in MODELS if spec.kind == "chat" and spec.embedded)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Raises BadInput, ContextTooLong, ModelNotFound, ModelNotReady, Overloaded, WorkerCrashed."""
        model_id = self._resolve(request.model, "embedding")
        model = await self._embedding_resident(model_id).loaded()
        return await model.embed(request)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """ChatStarted, some ChatPiece, ChatFinished. Closing the generator cancels the conversation.

        Raises, before the first event, BadInput, ContextTooLong, ModelNotFound, ModelNotReady, Overloaded;
        later WorkerCrashed.
        """
        model_id = self._resolve(request.model, "chat")
        model = await self._chat_resident(model_id).loaded()
        async with contextlib.aclosing(model.stream(request)) as events:
            async for event in events:
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
                    case ChatFinished(finish_reason, usage):
                        assert started is not None
                        return Completion(
                            started.model,
                            started.device,
                            "".join(text),
                            finish_reason,
                            usage,
                            tuple(logprobs),
                            tuple(calls),
                        )
        raise AssertionError("a conversation ended without its last event")

    def models(self) -> tuple[ModelStatus, ...]:
        """The installed models, and the default ones that are still on their way."""
        installed = {model.id: model for model in self.store.list()}
        coming = (i for i in (*self._embedding, *self._chat) if i not in installed)
        return tuple(self._status(model_id) for model_id in (*installed, *coming))

    def model(self, model_id: str) -> ModelStatus:
        """Raises ModelNotFound."""
        model_id = self.settings.aliases.get(model_id, model_id)
        if model_id not in self._embedding and model_id not in self._chat:
            self.store.require(model_id)
        return self._status(model_id)

    def health(self) -> Health:
        models = self.models()
        states = {status.state for status in models}
        embedding = [resident.model for resident in self._embedding.values() if resident.model]
        degraded = "failed" in states or any(model.degraded for model in embedding)
        return Health(
            status="degraded" if degraded else "loading" if "loading" in states else "ok",
            version=__version__,
            uptime_seconds=round(time.monotonic() - self._started_at, 3),
            npu=next((model.npu for model in embedding), SEARCHING),
            models=models,
            memory=MemoryStatus(_rss_bytes(os.getpid()) + sum(status.rss_bytes for status in models)),
            queue=QueueStatus(
                embedding=sum(model.waiting for model in embedding),
                chat=sum(r.model.in_flight for r in self._chat.values() if r.model),
            ),
        )

    def preparing(self) -> bool:
        """Whether a model still comes up, or graphs for the NPU are still being compiled."""
        states = {status.state for status in self.models()}
        return "loading" in states or any(r.model and r.model.preparing for r in self._embedding.values())

    def _chat_active(self) -> bool:
        return any(resident.model and resident.model.in_flight for resident in self._chat.values())

    def _resolve(self, wanted: str | None, kind: ModelKind) -> str:
        """The id of an installed or arriving model of this kind. Raises ModelNotFound or BadInput."""
        model_id = self.default_model(kind) if wanted is None else self.settings.aliases.get(wanted, wanted)
        residents = self._embedding if kind == "embedding" else self._chat
        if model_id not in residents and (found := self.store.require(model_id)).kind != kind:
            raise BadInput(f"{model_id!r} is a model for {found.kind}, not for {kind}.", param="model")
        return model_id

    def _embedding_resident(self, model_id: str) -> Resident[EmbeddingModel]:
        resident = self._embedding.get(model_id)
        if resident is None or resident.failed_for(RETRY_SECONDS):
            resident = Resident(model_id, lambda report: self._open_embedding(model_id, report))
            self._embedding[model_id] = resident
        return resident

    def _chat_resident(self, model_id: str) -> Resident[ChatModel]:
        resident = self._chat.get(model_id)
        if resident is None or resident.failed_for(RETRY_SECONDS):
            resident = Resident(model_id, lambda report: self._open_chat(model_id, report))
            self._chat[model_id] = resident
        return resident

    @contextlib.asynccontextmanager
    async def _open_embedding(self, model_id: str, report: Report) -> AsyncGenerator[EmbeddingModel]:
        installed = await self._install(model_id, report)
        async with EmbeddingModel.open(installed, self.settings, self._chat_active) as model:
            await model.ready()
            yield model

    @contextlib.asynccontextmanager
    async def _open_chat(self, model_id: str, report: Report) -> AsyncGenerator[ChatModel]:
        installed = await self._install(model_id, report)
        async with ChatModel.open(installed, log_folder=self.settings.home.log) as model:
            await model.ready()
            yield model

    async def _install(self, model_id: str, report: Report) -> InstalledModel:
        """The model's folder; the embedded models are fetched when they are not there yet."""
        installed = self.store.get(model_id)
        if installed is None:
            if not find(model_id).embedded:
                return self.store.require(model_id)
            report("fetching")
            log_file = self.settings.home.log / f"pull-{model_id}.log"
            installed = await fetch(self.store, model_id, log_file=log_file, report=report)
            report(None)
        return installed

    def _status(self, model_id: str) -> ModelStatus:
        installed = self.store.get(model_id)
        facts = installed or find(model_id)
        resident = self._embedding.get(model_id) or self._chat.get(model_id)
        model = resident.model if resident else None
        return ModelStatus(
            id=model_id,
            kind=facts.kind,
            state=resident.state if resident else "unloaded",
            device=model.device if model else None,
            revision=installed.revision if installed else None,
            detail=resident.detail if resident else None,
            context_tokens=facts.context_tokens,
            dimensions=facts.dimensions,
            rss_bytes=model.rss_bytes() if model else 0,
            requests=model.requests if model else 0,
            tokens=model.tokens if model else 0,
        )


def _rss_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)
