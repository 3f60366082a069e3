"""An engine without models: deterministic, can be held and can fail where a test wants it to."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import numpy as np

from engine.engine import Engine
from engine.errors import BadInput, ContextTooLong, ModelNotFound
from engine.settings import Home, Settings
from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    ChatToolCall,
    DeviceWork,
    Embeddings,
    EmbeddingWork,
    EmbedRequest,
    Health,
    MemoryStatus,
    ModelKind,
    ModelState,
    ModelStatus,
    NpuStatus,
    QueueStatus,
    Usage,
)

EMBEDDER = "tiny-embedder"
CHATTER = "tiny-chatter"
DIMENSIONS = 4
CONTEXT = 512
REVISION = "0123456789abcdef"

T = TypeVar("T")


def settings(**changes: Any) -> Settings:
    return replace(Settings(Home(Path("does-not-exist")), embed=EMBEDDER, chat=CHATTER), **changes)


class FakeEngine:
    """Vectors are made of the input's length; answers are `pieces`.

    admission, reading, writing: while one is not set, a request waits before its first event, before its
    first piece, or after each piece. error: raised by `embed`, and by `chat` at once or after some pieces.
    error_from_request: the first chat, counted from 0, that meets it. detail: of the models that are not
    ready, by `states`. running: chats, now. started, ended: set when a request runs, and when none runs any
    more, however it ended.
    """

    def __init__(
        self,
        *,
        pieces: tuple[str | ChatPiece | ChatToolCall, ...] = ("Hel", "lo"),
        error: Exception | None = None,
        pieces_before_error: int | None = None,
        error_from_request: int = 0,
        states: Mapping[str, ModelState] = MappingProxyType({}),
        detail: str = "half fetched",
    ) -> None:
        self.pieces = pieces
        self.error = error
        self.pieces_before_error = pieces_before_error
        self.error_from_request = error_from_request
        self.running = 0
        self.states = states
        self.detail = detail
        self.requests: list[EmbedRequest | ChatRequest] = []
        self.admission, self.reading, self.writing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for gate in (self.admission, self.reading, self.writing):
            gate.set()
        self.started, self.ended = asyncio.Event(), asyncio.Event()

    @property
    def as_engine(self) -> Engine:
        """It has what the routes ask of one."""
        return cast(Engine, self)

    @property
    def chats(self) -> list[ChatRequest]:
        return [request for request in self.requests if isinstance(request, ChatRequest)]

    def default_model(self, kind: ModelKind) -> str:
        return EMBEDDER if kind == "embedding" else CHATTER

    async def embed(self, request: EmbedRequest) -> Embeddings:
        self.requests.append(request)
        self.started.set()
        try:
            await self.admission.wait()
        finally:
            self.ended.set()
        if self.error:
            raise self.error
        self.model(request.model or EMBEDDER)
        long = tuple(index for index, item in enumerate(request.inputs) if len(item) > CONTEXT - 2)
        if long and request.on_overflow == "error":
            raise ContextTooLong(limit_tokens=CONTEXT, actual_tokens=600, field="inputs", index=0)
        vectors = np.array([fake_vector(item) for item in request.inputs], dtype=np.float32)
        return Embeddings(
            EMBEDDER, vectors[:, : request.dimensions], tuple(len(item) + 2 for item in request.inputs), long
        )

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        error = self.error if len(self.requests) >= self.error_from_request else None
        self.requests.append(request)
        self.running += 1
        self.started.set()
        try:
            await self.admission.wait()
            if error and self.pieces_before_error is None:
                raise error
            self.model(request.model or CHATTER)
            yield ChatStarted(CHATTER, "cpu", REVISION)
            await self.reading.wait()
            for written, piece in enumerate(self.pieces):
                if error and written == self.pieces_before_error:
                    raise error
                yield ChatPiece(piece) if isinstance(piece, str) else piece
                await self.writing.wait()
            calls = any(isinstance(piece, ChatToolCall) for piece in self.pieces)
            yield ChatFinished(
                "tool_calls" if calls else "stop",
                Usage(prompt_tokens=7, completion_tokens=len(self.pieces)),
                queue_seconds=0.5,
            )
        finally:
            self.running -= 1
            if not self.running:
                self.ended.set()

    complete = Engine.complete

    async def codec(self, model: str | None) -> "FakeCodec":
        self.model(model or CHATTER)
        return FakeCodec()

    def models(self) -> tuple[ModelStatus, ...]:
        return (
            self._status(EMBEDDER, "embedding", context_tokens=CONTEXT, dimensions=DIMENSIONS),
            self._status(CHATTER, "chat", context_tokens=4096, dimensions=None),
        )

    def model(self, model_id: str) -> ModelStatus:
        for status in self.models():
            if status.id == model_id:
                return status
        raise ModelNotFound(f"No model {model_id!r} is installed.")

    def health(self) -> Health:
        return Health(
            status="ok",
            version="0.1.0",
            uptime_seconds=1.5,
            npu=NpuStatus(available=False, emulated=False, name=None, reason="none here"),
            models=self.models(),
            memory=MemoryStatus(rss_bytes=1),
            queue=QueueStatus(embedding=0, chat=0),
        )

    def embedding_work(self) -> tuple[EmbeddingWork, ...]:
        cpu = DeviceWork("cpu", 32, 3, 30, 400, 1, 0.5, 0.75, 1.25)
        return (EmbeddingWork(EMBEDDER, (cpu,), cache_hits=5, cache_misses=25),)

    def _status(
        self, model_id: str, kind: ModelKind, *, context_tokens: int, dimensions: int | None
    ) -> ModelStatus:
        state = self.states.get(model_id, "ready")
        return ModelStatus(
            id=model_id,
            kind=kind,
            state=state,
            device="cpu" if state == "ready" else None,
            revision=REVISION,
            detail=None if state == "ready" else self.detail,
            context_tokens=context_tokens,
            dimensions=dimensions,
            rss_bytes=0,
            requests=0,
            tokens=0,
            installed_at=1_700_000_000 if kind == "embedding" else None,
        )


class FakeCodec:
    """Its tokens are code points, and 0 in front if wanted."""

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        return [0] * add_special + [ord(character) for character in text]

    def detokenize(self, token_ids: Sequence[int]) -> str:
        if any(token > 255 for token in token_ids):
            raise BadInput("Up to 255.", field="token_ids")
        return "".join(map(chr, token_ids))


def fake_vector(item: str | tuple[int, ...]) -> list[float]:
    """Not exactly representable in binary, so that rounding on the way would show."""
    return [len(item) / 3, 0.1, -0.7, 1e-9]


async def soon(awaitable: Awaitable[T]) -> T:
    """The result, or a failed test instead of one that hangs."""
    return await asyncio.wait_for(awaitable, timeout=5)
