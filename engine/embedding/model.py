"""An embedding model as the engine sees it: texts in, vectors out."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.embedding.batcher import Batcher
from engine.embedding.device import EmbeddingDevice
from engine.embedding.tokenizer import TextTokenizer, TokenizedBatch
from engine.errors import BadInput
from engine.hardware import physical_cores
from engine.models.store import InstalledModel
from engine.types import Embeddings, EmbedRequest, ModelState

INLINE_CHARACTERS = 4_000
"""Shorter inputs are tokenised on the event loop (under 1 ms), the others in a thread."""


class EmbeddingModel:
    """Owns the workers; `async with EmbeddingModel.open(...)`."""

    def __init__(self, installed: InstalledModel, device: EmbeddingDevice) -> None:
        assert installed.dimensions is not None
        self.installed = installed
        self.dimensions = installed.dimensions
        self._device = device
        self.requests = 0
        self.tokens = 0
        self._tokenizer = TextTokenizer.load(installed.folder, installed.context_tokens)
        self._batcher = Batcher([device])

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, installed: InstalledModel, *, log_folder: Path) -> AsyncGenerator["EmbeddingModel"]:
        device = EmbeddingDevice(
            "cpu",
            "engine.embedding.worker",
            [str(installed.folder), "--threads", str(physical_cores()), "--lanes", "1"],
            lanes=1,
            model_id=installed.id,
            log_file=log_folder / f"{installed.id}-cpu.log",
        )
        model = cls(installed, device)
        device.worker.start()
        try:
            async with model._batcher.running():
                yield model
        finally:
            await device.worker.stop()

    @property
    def state(self) -> ModelState:
        return self._device.worker.state

    @property
    def detail(self) -> str | None:
        return self._device.worker.detail

    async def ready(self) -> None:
        """Wait until texts can be embedded. Raises WorkerFailed when they never will."""
        await self._device.worker.ready()

    def rss_bytes(self) -> int:
        return self._device.worker.rss_bytes()

    @property
    def waiting(self) -> int:
        return self._batcher.waiting

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Raises BadInput, ContextTooLong, Overloaded, WorkerFailed."""
        if request.dimensions is not None and not 1 <= request.dimensions <= self.dimensions:
            raise BadInput(
                f"dimensions must be from 1 to {self.dimensions}, not {request.dimensions}.",
                param="dimensions",
            )
        await self.ready()
        tokenized = await self._tokenize(request)
        vectors, devices = await self._batcher.embed(tokenized.ids)
        token_counts = tuple(len(ids) for ids in tokenized.ids)
        self.requests += 1
        self.tokens += sum(token_counts)
        return Embeddings(
            model=self.installed.id,
            vectors=shortened(vectors, request.dimensions),
            token_counts=token_counts,
            truncated=tokenized.truncated,
            devices=devices,
        )

    async def _tokenize(self, request: EmbedRequest) -> TokenizedBatch:
        encode = functools.partial(
            self._tokenizer.encode_batch,
            request.inputs,
            input_type=request.input_type,
            on_overflow=request.on_overflow,
        )
        if sum(map(len, request.inputs)) <= INLINE_CHARACTERS:
            return encode()
        return await asyncio.to_thread(encode)


def shortened(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The first `dimensions` numbers of each row, scaled to length 1 again."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    lengths: NDArray[np.float32] = np.linalg.norm(kept, axis=1, keepdims=True)
    return kept / lengths
