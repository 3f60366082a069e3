"""A device that runs a batch when the test releases it, and a batcher in front of it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from engine.embedding.batcher import Batcher
from engine.embedding.devices.costs import Cost, CostTable
from engine.types import Device
from engine.workers.supervisor import WorkerUnavailable

WAIT_SECONDS = 5


TICK_SECONDS = 0.015625


class ManualDevice:
    """Runs a batch when the test releases it; a text's vector is its length."""

    lanes = 1

    def __init__(self, device: Device = "cpu", costs: CostTable | None = None) -> None:
        self.device = device
        self.costs = costs
        self.usable_tokens = 512
        self.expected_seconds = 0.0
        self.batches: asyncio.Queue[list[int]] = asyncio.Queue()
        self.outcomes: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.worker = ReadyWorker()

    def longest(self) -> int:
        return self.usable_tokens

    def hopeless(self) -> bool:
        return not self.usable_tokens

    def unavailable(self) -> WorkerUnavailable:
        return WorkerUnavailable("It was switched off.", retry_after_seconds=1)

    def busy_seconds(self) -> float:
        return self.expected_seconds

    async def run(
        self, token_ids: Sequence[NDArray[np.int32]], expected_seconds: float
    ) -> NDArray[np.float32]:
        lengths = [len(ids) for ids in token_ids]
        self.expected_seconds = expected_seconds
        self.batches.put_nowait(lengths)
        await asyncio.sleep(0)  # as a real one, it never answers at once
        error = await self.outcomes.get()
        self.expected_seconds = 0.0
        if error:
            raise error
        return np.array([[length] for length in lengths], dtype=np.float32)

    def release(self, error: Exception | None = None) -> None:
        self.outcomes.put_nowait(error)

    async def batch(self) -> list[int]:
        return await asyncio.wait_for(self.batches.get(), WAIT_SECONDS)


class ReadyWorker:
    name = "manual"


@asynccontextmanager
async def running() -> AsyncGenerator[tuple[Batcher, ManualDevice]]:
    device = ManualDevice()
    batcher = Batcher([device])  # type: ignore[list-item]
    async with batcher.running():
        yield batcher, device


def texts(*lengths: int) -> list[NDArray[np.int32]]:
    return [np.arange(length, dtype=np.int32) for length in lengths]


async def embed(batcher: Batcher, *lengths: int) -> list[float]:
    return [float(vector[0]) for vector, _ in await batcher.embed(texts(*lengths))]


PER_TEXT = {32: 0.001, 64: 0.002, 128: 0.004, 256: 0.008, 512: 0.016}


def costs(first: float, factor: float) -> CostTable:
    return CostTable({length: Cost(first, factor * seconds) for length, seconds in PER_TEXT.items()})


async def devices_of(batcher: Batcher, *lengths: int) -> set[Device]:
    return {device for _, device in await batcher.embed(texts(*lengths))}


@asynccontextmanager
async def running_two(
    cpu: CostTable, npu: CostTable, forced: Device | None = None
) -> AsyncGenerator[tuple[Batcher, ManualDevice, ManualDevice]]:
    devices = ManualDevice("cpu", cpu), ManualDevice("npu", npu)
    batcher = Batcher(devices, forced=forced)  # type: ignore[arg-type]
    async with batcher.running():
        yield batcher, *devices


async def settled(batcher: Batcher, waiting: int) -> None:
    """Until so many texts stand in line."""
    async with asyncio.timeout(WAIT_SECONDS):
        while batcher.waiting != waiting:
            await asyncio.sleep(0)
