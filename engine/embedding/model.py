"""An embedding model as the engine sees it: texts in, vectors out."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from engine.embedding.batch_messages import CpuOptions
from engine.embedding.batcher import Batcher
from engine.embedding.cache import VectorCache
from engine.embedding.calibration import CalibrationFile, measure
from engine.embedding.devices.costs import LENGTHS, CostTable
from engine.embedding.devices.device import EmbeddingDevice
from engine.embedding.devices.npu import NpuDevice
from engine.embedding.tokenizer import TextTokenizer, TokenizedBatch
from engine.errors import BadInput, EngineError
from engine.hardware import physical_cores
from engine.models.store import InstalledModel
from engine.settings import Settings
from engine.types import (
    Device,
    DeviceWork,
    Embeddings,
    EmbeddingWork,
    EmbedRequest,
    ModelState,
    NpuStatus,
)

logger = logging.getLogger(__name__)

MAX_CPU_LANES = 4
"""Batches side by side on the CPU: two with a thread each beat one with two. Beyond so many, the remaining
cores help the batches that run, so that one long text alone is not left to a single core."""

INLINE_CHARACTERS = 4_000
"""Shorter inputs are tokenised on the event loop (under 1 ms), the others in a thread."""

NOT_WANTED = NpuStatus(available=False, emulated=False, name=None, reason="switched off by device = cpu")


class EmbeddingModel:
    """Owns the workers; `async with EmbeddingModel.open(...)`."""

    def __init__(
        self, installed: InstalledModel, settings: Settings, chat_active: Callable[[], bool]
    ) -> None:
        home, choice = settings.home, settings.device
        assert installed.dimensions is not None
        self.installed = installed
        self.dimensions = installed.dimensions
        self._home = home
        self._tokenizer = TextTokenizer.load(installed.folder, installed.context_tokens)
        lanes = min(physical_cores(), MAX_CPU_LANES)
        self._cpu = EmbeddingDevice(
            "engine.embedding.cpu.cpu_worker",
            CpuOptions(installed.folder, physical_cores(), lanes),
            lanes=lanes,
            model_id=installed.id,
            log_file=home.log / f"{installed.id}-cpu.log",
            on_change=self._changed,
        )
        self._npu: NpuDevice | None = None
        if choice != "cpu":
            self._npu = NpuDevice(
                installed.folder,
                home.contexts,
                forced=choice == "npu",
                model_id=installed.id,
                log_file=home.log / f"{installed.id}-npu.log",
                on_change=self._changed,
            )
        self._batcher = Batcher(
            [self._cpu, self._npu] if self._npu else [self._cpu],
            forced="npu" if choice == "npu" else None,
            chat_active=chat_active,
        )
        self.cache = VectorCache(settings.embedding_cache_mb * 2**20)
        self._calibrate = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, installed: InstalledModel, settings: Settings, chat_active: Callable[[], bool]
    ) -> AsyncGenerator["EmbeddingModel"]:
        """chat_active: whether a chat is being decoded on the CPU at the moment."""
        model = cls(installed, settings, chat_active)
        calibration = asyncio.create_task(model._keep_calibrated(), name=f"calibration of {installed.id}")
        model._cpu.worker.start()
        if model._npu:
            model._npu.start()
        try:
            async with model._batcher.running():
                yield model
        finally:
            calibration.cancel()
            await asyncio.gather(calibration, return_exceptions=True)
            await model._cpu.worker.stop()
            if model._npu:
                await model._npu.stop()

    @property
    def state(self) -> ModelState:
        return self._cpu.worker.state

    @property
    def detail(self) -> str | None:
        if self._cpu.worker.detail:
            return self._cpu.worker.detail
        return self._npu.trouble if self._npu else None

    @property
    def npu(self) -> NpuStatus:
        return self._npu.status if self._npu else NOT_WANTED

    @property
    def degraded(self) -> bool:
        """Its process has ended, or an NPU that is there, or was asked for, does not do its part."""
        if self._cpu.worker.troubled:
            return True
        if self._npu is None:
            return False
        absent = not self._npu.status.available and not self._npu.preparing
        return self._npu.trouble is not None or (absent and self._npu.forced)

    @property
    def worker_failures(self) -> int:
        return self._cpu.worker.failures + (self._npu.worker.failures if self._npu else 0)

    @property
    def device(self) -> Device:
        """npu as soon as texts can go there; which of them do is decided text by text."""
        return "npu" if self._npu and self._npu.longest() else "cpu"

    @property
    def context_tokens(self) -> int:
        return self.installed.context_tokens

    @property
    def work(self) -> EmbeddingWork:
        shares = sorted(self._batcher.shares.items())
        devices = tuple(DeviceWork(device, tokens, **asdict(share)) for (device, tokens), share in shares)
        return EmbeddingWork(self.installed.id, devices, self.cache.hits, self.cache.misses)

    @property
    def in_flight(self) -> int:
        return self._batcher.waiting

    @property
    def preparing(self) -> bool:
        """Whether the NPU may soon take texts that it cannot take now."""
        return self._npu is not None and self._npu.preparing

    async def ready(self) -> None:
        """Wait until texts can be embedded. Raises WorkerUnavailable while they cannot."""
        await self._cpu.worker.ready()

    def rss_bytes(self) -> int:
        return self._cpu.worker.rss_bytes() + (self._npu.worker.rss_bytes() if self._npu else 0)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Raises BadInput, ContextTooLong, Overloaded, Unavailable."""
        if request.dimensions is not None and not 1 <= request.dimensions <= self.dimensions:
            raise BadInput(
                f"dimensions must be from 1 to {self.dimensions}, not {request.dimensions}.",
                field="dimensions",
            )
        tokenized = await self._tokenize(request)
        vectors, devices = await self._vectors(tokenized.ids)
        return Embeddings(
            model=self.installed.id,
            vectors=shortened(vectors, request.dimensions),
            token_counts=tuple(len(ids) for ids in tokenized.ids),
            truncated=tokenized.truncated,
            devices=devices,
            npu_emulated="npu" in devices and self.npu.emulated,
        )

    async def _vectors(
        self, token_ids: Sequence[NDArray[np.int32]]
    ) -> tuple[NDArray[np.float32], tuple[Device, ...]]:
        """From the cache where possible. The devices are those that computed the vectors, now or earlier."""
        known = [self.cache.get(ids) for ids in token_ids]
        missing = [ids for ids, cached in zip(token_ids, known, strict=True) if cached is None]
        computed = await self._batcher.embed(missing) if missing else []
        for ids, (vector, device) in zip(missing, computed, strict=True):
            self.cache.put(ids, vector, device)
        fresh = iter(computed)
        found = [(cached.vector, cached.device) if cached else next(fresh) for cached in known]
        return np.stack([vector for vector, _ in found]), tuple(dict.fromkeys(device for _, device in found))

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

    def _changed(self) -> None:
        self._batcher.wake()
        self._calibrate.set()

    async def _keep_calibrated(self) -> None:
        """Measure both devices for each text length that the NPU can run; only a choice needs costs."""
        while True:
            await self._calibrate.wait()
            self._calibrate.clear()
            npu = self._npu
            if npu is None or npu.identity is None or self._cpu.worker.state != "ready" or npu.forced:
                continue
            file = CalibrationFile(
                self._home.contexts / f"calibration-{self.installed.id}.json",
                model_revision=self.installed.revision,
                npu=npu.identity,
            )
            try:
                await self._measure_missing(npu, file)
            except EngineError as error:
                logger.warning("calibration is put off until the devices change: %s", error)

    async def _measure_missing(self, npu: NpuDevice, file: CalibrationFile) -> None:
        known = {name: dict(costs) for name, costs in (await asyncio.to_thread(file.read)).items()}
        devices: tuple[EmbeddingDevice, ...] = (self._cpu, npu)
        for device, lengths in zip(devices, (LENGTHS, npu.available), strict=True):
            costs = known.setdefault(device.device, {})
            for length in lengths:
                if length not in costs:
                    costs[length] = await measure(device, length)
                    await asyncio.to_thread(file.write, known)
        if npu.available and not npu.preparing:
            for device in devices:
                device.costs = CostTable(known[device.device])
            self._batcher.wake()


def shortened(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The first `dimensions` numbers of each row, scaled to length 1 again."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    lengths: NDArray[np.float32] = np.linalg.norm(kept, axis=1, keepdims=True)
    return kept / lengths
