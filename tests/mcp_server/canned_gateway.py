"""A gateway with the real lock, endpoint and HTTP routes in front of an engine that answers from a list.

Run as a program it is what `npu-gateway serve --auto` is, but starts in a second and can be told to fail.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from typing import cast

import numpy as np

from engine.daemon import claim
from engine.engine import Engine
from engine.errors import GatewayRunning, ModelNotFound, Overloaded, WorkerCrashed
from engine.settings import Home, Settings
from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    Completion,
    Embeddings,
    EmbedRequest,
    Health,
    MemoryStatus,
    ModelStatus,
    NpuStatus,
    QueueStatus,
    Usage,
)
from openai_shim.app import create_app
from openai_shim.http.context import GatewayContext
from openai_shim.serve.server import serving

EMBEDDER = ModelStatus("canned-embed", "embedding", "ready", "cpu", "r1", None, 512, 4, 1000, 0, 0)
CHATTER = ModelStatus("canned-chat", "chat", "ready", "cpu", "r1", None, 2048, None, 2000, 0, 0)


class CannedEngine:
    """The prompt decides: `busy`, `crash`, `breaks off`, `endless`, `silent`, `long`; any other is echoed,
    and so is the schema of the answer."""

    def __init__(self) -> None:
        self.running_chats = 0

    def default_model(self, kind: str) -> str:
        return EMBEDDER.id if kind == "embedding" else CHATTER.id

    def models(self) -> tuple[ModelStatus, ...]:
        return EMBEDDER, CHATTER

    def model(self, model_id: str) -> ModelStatus:
        for status in self.models():
            if status.id == model_id:
                return status
        raise ModelNotFound(
            f"Model {model_id!r} is not installed. Fetch it with: npu-gateway pull {model_id}"
        )

    def health(self) -> Health:
        npu = NpuStatus(available=False, emulated=False, name=None, reason="canned")
        queue = QueueStatus(embedding=0, chat=self.running_chats)
        return Health("ok", "0.1.0", 1.5, npu, self.models(), MemoryStatus(3000), queue)

    async def load(self, model_id: str) -> ModelStatus:
        return self.model(model_id)

    unload = load

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Documents point along the first axis, queries along the second, texts with an x between them."""
        self.model(request.model or EMBEDDER.id)
        axis = 1 if request.input_type == "query" else 0
        vectors = np.zeros((len(request.inputs), 4), dtype=np.float32)
        vectors[:, axis] = 1
        vectors[["x" in text for text in request.inputs]] = (0.6, 0.8, 0, 0)
        return Embeddings(
            EMBEDDER.id, vectors, tuple(3 for _ in request.inputs), npu_emulated=True, devices=("npu",)
        )

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        self.model(request.model or CHATTER.id)
        prompt = request.messages[-1].content
        self.running_chats += 1
        try:
            match prompt:
                case "busy":
                    raise Overloaded("Too many chats are waiting.", retry_after_seconds=7)
                case "crash":
                    os._exit(9)
            yield ChatStarted(CHATTER.id, "cpu", CHATTER.revision)
            if prompt == "silent":
                await asyncio.Event().wait()
            if prompt == "breaks off":
                yield ChatPiece("so far ")
                raise WorkerCrashed("The chat worker ended.")
            while prompt == "endless":
                yield ChatPiece("on and ")
                await asyncio.sleep(0.02)
            for message in request.messages:
                yield ChatPiece(f"{message.role}: {message.content}. ")
            if request.json_format:
                yield ChatPiece(f"as {request.json_format.schema}")
            yield ChatFinished(
                "length" if prompt == "long" else "stop",
                Usage(prompt_tokens=11, completion_tokens=7, cached_tokens=3),
            )
        finally:
            self.running_chats -= 1

    async def complete(self, request: ChatRequest) -> Completion:
        raise NotImplementedError("clients of this gateway stream")


async def main(home: Home, port: int) -> None:
    with claim(home, "127.0.0.1", port, auto_started=True) as claimed:
        if (home.root / "over").exists():  # the test has ended meanwhile
            return
        with (home.run / "starts").open("a") as starts:
            starts.write(f"{claimed.endpoint.instance}\n")
        token = claimed.endpoint.token
        context = GatewayContext(
            cast(Engine, CannedEngine()), Settings(home), accepted_keys=(token,), endpoint=claimed.endpoint
        )
        async with serving(create_app(context), claimed.sockets):
            await context.closing.wait()


if __name__ == "__main__":
    try:
        asyncio.run(main(Home.locate(), port=int(sys.argv[1])))
    except GatewayRunning:
        raise SystemExit(0) from None
