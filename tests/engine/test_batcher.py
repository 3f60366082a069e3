"""The line of waiting texts, with devices that run when the test says so."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.embedding import batcher as batcher_module
from engine.embedding.batcher import BATCH_TOKENS, Batcher
from engine.embedding.device import DeviceFailed
from engine.errors import EngineError, Overloaded
from engine.types import Device

WAIT_SECONDS = 5


class ManualDevice:
    """Runs a batch when the test releases it; a text's vector is its length."""

    device: Device = "cpu"
    lanes = 1

    def __init__(self) -> None:
        self.batches: asyncio.Queue[list[int]] = asyncio.Queue()
        self.outcomes: asyncio.Queue[EngineError | None] = asyncio.Queue()
        self.worker = ReadyWorker()

    async def run(self, token_ids: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        lengths = [len(ids) for ids in token_ids]
        self.batches.put_nowait(lengths)
        if error := await self.outcomes.get():
            raise error
        return np.array([[length] for length in lengths], dtype=np.float32)

    def release(self, error: EngineError | None = None) -> None:
        self.outcomes.put_nowait(error)

    async def batch(self) -> list[int]:
        return await asyncio.wait_for(self.batches.get(), WAIT_SECONDS)


class ReadyWorker:
    name = "manual"
    state = "ready"

    async def ready(self) -> None:
        pass


@asynccontextmanager
async def running() -> AsyncGenerator[tuple[Batcher, ManualDevice]]:
    device = ManualDevice()
    batcher = Batcher([device])  # type: ignore[list-item]
    async with batcher.running():
        yield batcher, device


def texts(*lengths: int) -> list[tuple[int, ...]]:
    return [tuple(range(length)) for length in lengths]


async def embed(batcher: Batcher, *lengths: int) -> list[float]:
    vectors, _ = await batcher.embed(texts(*lengths))
    return [float(row[0]) for row in vectors]


async def test_an_idle_device_starts_at_once_with_a_single_text() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, 7))

        assert await device.batch() == [7]
        device.release()
        assert await task == [7.0]


async def test_what_gathers_while_the_device_is_busy_forms_the_next_batch() -> None:
    async with running() as (batcher, device):
        first = asyncio.create_task(embed(batcher, 5))
        await device.batch()
        others = [asyncio.create_task(embed(batcher, length)) for length in (9, 3, 6)]
        await settled(batcher, 3)
        device.release()

        assert await device.batch() == [3, 6, 9]
        device.release()
        assert await asyncio.gather(first, *others) == [[5.0], [9.0], [3.0], [6.0]]


async def test_vectors_come_back_in_the_order_of_the_texts_however_they_were_batched() -> None:
    async with running() as (batcher, device):
        lengths = [400, 3, 500, 20, 3, 450, 100]
        task = asyncio.create_task(embed(batcher, *lengths))
        for _ in lengths:
            device.release()

        assert await asyncio.wait_for(task, WAIT_SECONDS) == [float(length) for length in lengths]


async def test_a_batch_with_its_padding_stays_within_the_token_budget() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, *([300] * 5), *([10] * 40)))
        batches: list[list[int]] = []
        while sum(map(len, batches)) < 45:
            batches.append(await device.batch())
            device.release()
        await asyncio.wait_for(task, WAIT_SECONDS)

        assert all(max(batch) * len(batch) <= BATCH_TOKENS for batch in batches)


async def test_a_text_longer_than_the_budget_runs_alone() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, BATCH_TOKENS + 1, 4))
        first = await device.batch()
        device.release()
        device.release()
        await asyncio.wait_for(task, WAIT_SECONDS)

        assert first == [BATCH_TOKENS + 1]


async def test_a_single_text_waits_for_two_batches_at_most_behind_a_large_request() -> None:
    async with running() as (batcher, device):
        large = asyncio.create_task(embed(batcher, *([500] * 100)))
        await device.batch()
        small = asyncio.create_task(embed(batcher, 8))
        await settled(batcher, 99)
        for _ in range(3):
            device.release()

        assert await asyncio.wait_for(small, WAIT_SECONDS) == [8.0]
        large.cancel()


async def test_the_texts_of_a_departed_caller_are_not_run() -> None:
    async with running() as (batcher, device):
        first = asyncio.create_task(embed(batcher, 5))
        await device.batch()
        leaving = asyncio.create_task(embed(batcher, 6, 7))
        staying = asyncio.create_task(embed(batcher, 8))
        await settled(batcher, 3)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        device.release()

        assert await device.batch() == [8]
        device.release()
        assert await asyncio.gather(first, staying) == [[5.0], [8.0]]


async def test_a_failed_batch_is_tried_once_more() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, 5))
        device.release(DeviceFailed("first try"))
        device.release()

        assert await asyncio.wait_for(task, WAIT_SECONDS) == [5.0]


async def test_a_batch_that_fails_twice_fails_its_request_with_the_reason() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, 5))
        device.release(DeviceFailed("first try"))
        device.release(DeviceFailed("second try"))

        with pytest.raises(DeviceFailed, match="second try"):
            await asyncio.wait_for(task, WAIT_SECONDS)


async def test_a_full_line_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "MAX_WAITING_TEXTS", 3)
    async with running() as (batcher, device):
        tasks = [asyncio.create_task(embed(batcher, 5))]
        await device.batch()
        tasks += [asyncio.create_task(embed(batcher, 5)) for _ in range(2)]
        await settled(batcher, 2)

        with pytest.raises(Overloaded):
            await asyncio.wait_for(embed(batcher, 1, 2), WAIT_SECONDS)
        for task in tasks:
            task.cancel()


async def settled(batcher: Batcher, waiting: int) -> None:
    """Until so many texts stand in line."""
    async with asyncio.timeout(WAIT_SECONDS):
        while batcher.waiting != waiting:
            await asyncio.sleep(0)
