"""The engine: every model of this machine behind two verbs, embed and chat.

    async with Engine.start(settings) as engine:
        vectors = (await engine.embed(EmbedRequest(("a text",)))).vectors

A request flows from here to the model (tokenising, queueing), to its worker process and back. Models come up
in the background: `start` returns at once, and a request waits for its model while it loads. Which models are
in memory is up to `engine.hosting.hosted`.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Mapping

import psutil

from engine import __version__
from engine.chat.model import ChatModel
from engine.embedding.devices.npu import SEARCHING
from engine.embedding.model import EmbeddingModel
from engine.errors import BadInput
from engine.hosting.hosted import HostedModel
from engine.hosting.install import fetch
from engine.hosting.resident import Report
from engine.hosting.tally import Tally
from engine.models.registry import MODELS, find
from engine.models.store import InstalledModel, ModelStore
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

PREFERRED_CHAT = "phi-3-mini-4k-instruct"
NOT_SEARCHED = NpuStatus(available=False, emulated=False, name=None, reason="no embedding model is loaded")


class Engine:
    """One per machine; `async with Engine.start(settings)`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = ModelStore(settings.home.models)
        self._codecs = Codecs()
        self._started_at = time.monotonic()
        self._embedding: dict[str, HostedModel[EmbeddingModel]] = {}
        self._chat: dict[str, HostedModel[ChatModel]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, settings: Settings) -> AsyncGenerator["Engine"]:
        engine = cls(settings)
        engine._hosted_embedding(engine.default_model("embedding")).start()
        engine._hosted_chat(engine.default_model("chat")).start()
        try:
            yield engine
        finally:
            await asyncio.gather(*(hosted.close() for hosted in engine._all().values()))

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
        hosted = self._hosted_embedding(model_id)
        async with hosted.in_use() as model:
            result = await model.embed(request)
        hosted.tally.count_request()
        hosted.tally.count_tokens(sum(result.token_counts))
        return result

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """ChatStarted, some ChatPiece, ChatFinished. Closing the generator cancels the conversation.

        Raises, before the first event, BadInput, ContextTooLong, ModelNotFound, ModelNotReady, Overloaded;
        later WorkerCrashed.
        """
        model_id = self._resolve(request.model, "chat")
        hosted = self._hosted_chat(model_id)
        pieces = 0
        async with hosted.in_use() as model, contextlib.aclosing(model.stream(request)) as events:
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
                        )
        raise AssertionError("a conversation ended without its last event")

    async def load(self, model_id: str) -> ModelStatus:
        """Returns when the model is in memory.

        Raises ModelNotFound, ModelNotReady during a download, and what kept the model from loading.
        """
        model_id = self._aliased(model_id)
        await self._hosted(model_id).load()
        return self._status(model_id)

    async def unload(self, model_id: str) -> ModelStatus:
        """Give the model's memory back: before this returns, or when the last running request has ended.

        The next request loads it again. Raises ModelNotFound.
        """
        model_id = self._aliased(model_id)
        await self._hosted(model_id).unload()
        return self._status(model_id)

    async def codec(self, model: str | None) -> Codec:
        """The tokenizer of an installed model, by default of the chat model. Raises ModelNotFound."""
        wanted = self.default_model("chat") if model is None else self.settings.aliases.get(model, model)
        return await self._codecs.of(self.store.require(wanted))

    def models(self) -> tuple[ModelStatus, ...]:
        """The installed models, and those that are still on their way or failed to come."""
        installed = [model.id for model in self.store.list()]
        known = {spec.id for spec in MODELS}
        coming = (
            model_id
            for model_id, hosted in self._all().items()
            if model_id not in installed
            and (hosted.model or (model_id in known and hosted.state != "unloaded"))
        )
        return tuple(self._status(model_id) for model_id in (*installed, *coming))

    def model(self, model_id: str) -> ModelStatus:
        """Raises ModelNotFound."""
        model_id = self._aliased(model_id)
        self._kind(model_id)
        return self._status(model_id)

    def health(self) -> Health:
        models = self.models()
        states = {status.state for status in models}
        embedding = [hosted.model for hosted in self._embedding.values() if hosted.model]
        searching = any(hosted.state == "loading" for hosted in self._embedding.values())
        degraded = "failed" in states or any(model.degraded for model in embedding)
        return Health(
            status="degraded" if degraded else "loading" if "loading" in states else "ok",
            version=__version__,
            uptime_seconds=round(time.monotonic() - self._started_at, 3),
            npu=next((model.npu for model in embedding), SEARCHING if searching else NOT_SEARCHED),
            models=models,
            memory=MemoryStatus(_rss_bytes(os.getpid()) + sum(status.rss_bytes for status in models)),
            queue=QueueStatus(
                embedding=sum(model.waiting for model in embedding),
                chat=sum(hosted.model.in_flight for hosted in self._chat.values() if hosted.model),
            ),
        )

    def embedding_work(self) -> tuple[EmbeddingWork, ...]:
        """What the loaded embedding models have done since they were loaded."""
        return tuple(resident.model.work for resident in self._embedding.values() if resident.model)

    def preparing(self) -> bool:
        """Whether a model still comes up, or graphs for the NPU are still being compiled."""
        states = {status.state for status in self.models()}
        return "loading" in states or any(
            hosted.model and hosted.model.preparing for hosted in self._embedding.values()
        )

    def _chat_active(self) -> bool:
        return any(hosted.model and hosted.model.in_flight for hosted in self._chat.values())

    def _resolve(self, wanted: str | None, kind: ModelKind) -> str:
        """The id of an installed or arriving model of this kind. Raises ModelNotFound or BadInput."""
        model_id = self.default_model(kind) if wanted is None else self._aliased(wanted)
        if (found := self._kind(model_id)) != kind:
            raise BadInput(f"{model_id!r} is a model for {found}, not for {kind}.", param="model")
        return model_id

    def _aliased(self, model_id: str) -> str:
        return self.settings.aliases.get(model_id, model_id)

    def _kind(self, model_id: str) -> ModelKind:
        """What a model is for that is installed or can come by itself. Raises ModelNotFound."""
        if (hosted := self._embedding.get(model_id)) and hosted.state != "unloaded":
            return "embedding"
        if (hosted_chat := self._chat.get(model_id)) and hosted_chat.state != "unloaded":
            return "chat"
        return find(model_id).kind if _is_embedded(model_id) else self.store.require(model_id).kind

    def _hosted(self, model_id: str) -> HostedModel[EmbeddingModel] | HostedModel[ChatModel]:
        """Raises ModelNotFound."""
        if self._kind(model_id) == "embedding":
            return self._hosted_embedding(model_id)
        return self._hosted_chat(model_id)

    def _all(self) -> Mapping[str, HostedModel[EmbeddingModel] | HostedModel[ChatModel]]:
        return {**self._embedding, **self._chat}

    def _hosted_embedding(self, model_id: str) -> HostedModel[EmbeddingModel]:
        if model_id not in self._embedding:
            self._embedding[model_id] = HostedModel(
                model_id, lambda report: self._open_embedding(model_id, report)
            )
        return self._embedding[model_id]

    def _hosted_chat(self, model_id: str) -> HostedModel[ChatModel]:
        if model_id not in self._chat:
            kept_for_ever = _is_embedded(model_id) or not self.settings.keep_alive_minutes
            self._chat[model_id] = HostedModel(
                model_id,
                lambda report: self._open_chat(model_id, report),
                keep_alive_seconds=None if kept_for_ever else self.settings.keep_alive_minutes * 60,
            )
        return self._chat[model_id]

    @contextlib.asynccontextmanager
    async def _open_embedding(self, model_id: str, report: Report) -> AsyncGenerator[EmbeddingModel]:
        installed = await self._install(model_id, report)
        async with EmbeddingModel.open(installed, self.settings, self._chat_active) as model:
            await model.ready()
            yield model

    @contextlib.asynccontextmanager
    async def _open_chat(self, model_id: str, report: Report) -> AsyncGenerator[ChatModel]:
        installed = await self._install(model_id, report)
        async with ChatModel.open(installed, self.settings) as model:
            await model.ready()
            yield model

    async def _install(self, model_id: str, report: Report) -> InstalledModel:
        """The model's folder; the embedded models are fetched when they are not there yet."""
        installed = self.store.get(model_id)
        if installed is None:
            if not _is_embedded(model_id):
                return self.store.require(model_id)
            report("fetching")
            log_file = self.settings.home.log / f"pull-{model_id}.log"
            installed = await fetch(self.store, model_id, log_file=log_file, report=report)
            report(None)
        return installed

    def _status(self, model_id: str) -> ModelStatus:
        installed = self.store.get(model_id)
        hosted = self._all().get(model_id)
        model = hosted.model if hosted else None
        facts = installed or (model.installed if model else find(model_id))
        tally = hosted.tally if hosted else Tally()
        return ModelStatus(
            id=model_id,
            kind=facts.kind,
            state=hosted.state if hosted else "unloaded",
            device=model.device if model else None,
            revision=installed.revision if installed else None,
            detail=hosted.detail if hosted else None,
            context_tokens=model.context_tokens if model else facts.context_tokens,
            dimensions=facts.dimensions,
            rss_bytes=model.rss_bytes() if model else 0,
            requests=tally.requests,
            tokens=tally.tokens,
            tokens_per_second=tally.tokens_per_second,
            installed_at=installed.installed_at if installed else None,
        )


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


def _is_embedded(model_id: str) -> bool:
    """Whether it comes by itself and stays in memory."""
    return any(spec.id == model_id and spec.embedded for spec in MODELS)


def _rss_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)
