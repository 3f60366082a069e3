"""The line of waiting texts, with devices that run when the test says so."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from engine.embedding import batcher as batcher_module
from engine.embedding.batcher import BATCH_TOKENS
from engine.embedding.devices.costs import Cost, CostTable
from engine.embedding.devices.device import DeviceFailed
from engine.errors import ModelNotReady, Overloaded
from engine.workers.supervisor import WorkerUnavailable
from tests.engine.embedding.manual_device import (
    TICK_SECONDS,
    WAIT_SECONDS,
    costs,
    devices_of,
    embed,
    running,
    running_two,
    settled,
    texts,
)


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
        others = [asyncio.create_task(embed(batcher, length)) for length in (9, 5, 6)]
        await settled(batcher, 3)
        device.release()

        assert await device.batch() == [5, 6, 9]
        device.release()
        assert await asyncio.gather(first, *others) == [[5.0], [9.0], [5.0], [6.0]]


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


async def test_a_short_text_is_not_padded_to_a_long_one() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, 500, 4))
        first = await device.batch()
        device.release()
        device.release()
        await asyncio.wait_for(task, WAIT_SECONDS)

        assert first == [500]


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
        assert (await first, await staying) == ([5.0], [8.0])


async def test_whoever_waits_when_the_model_leaves_is_told() -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        async with running() as (batcher, device):
            runs = asyncio.create_task(embed(batcher, 5))
            await device.batch()
            waits = asyncio.create_task(embed(batcher, 6))
            await settled(batcher, 1)

        for task in (runs, waits):
            with pytest.raises(ModelNotReady, match="taken out of memory"):
                await task


async def test_a_failed_batch_is_tried_once_more() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, 5))
        device.release(DeviceFailed("first try"))
        device.release()

        assert await asyncio.wait_for(task, WAIT_SECONDS) == [5.0]


async def test_a_text_that_fails_by_itself_too_fails_its_request_with_the_reason() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, 5))
        for attempt in ("first", "second", "third"):
            device.release(DeviceFailed(f"{attempt} try"))

        with pytest.raises(DeviceFailed, match="third try"):
            await asyncio.wait_for(task, WAIT_SECONDS)


async def test_the_text_that_makes_a_batch_fail_takes_no_other_request_along() -> None:
    async with running() as (batcher, device):
        first = asyncio.create_task(embed(batcher, 5))
        await device.batch()
        poison, innocent = (asyncio.create_task(embed(batcher, length)) for length in (7, 8))
        await settled(batcher, 2)
        device.release()
        batches = [await device.batch()]
        device.release(DeviceFailed("together"))
        while not (poison.done() and innocent.done()):
            batch = await device.batch()
            batches.append(batch)
            device.release(DeviceFailed("alone") if batch == [7] else None)
            await asyncio.sleep(0.01)

        assert batches[0] == [7, 8]
        assert all(len(batch) == 1 for batch in batches[1:])
        assert (await first, await innocent) == ([5.0], [8.0])
        with pytest.raises(DeviceFailed, match="alone"):
            await poison


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


async def test_a_single_text_goes_to_the_device_that_runs_it_faster() -> None:
    async with running_two(cpu=costs(0.005, 1), npu=costs(0.002, 2)) as (batcher, _, npu):
        task = asyncio.create_task(devices_of(batcher, 10))
        npu.release()

        assert await asyncio.wait_for(task, WAIT_SECONDS) == {"npu"}


async def test_a_batch_goes_to_the_device_that_runs_batches_faster_though_it_is_slower_alone() -> None:
    async with running_two(cpu=costs(0.005, 1), npu=costs(0.002, 2)) as (batcher, cpu, _):
        task = asyncio.create_task(devices_of(batcher, *[30] * 16))
        cpu.release()

        assert await asyncio.wait_for(task, WAIT_SECONDS) == {"cpu"}


async def test_a_large_request_is_split_over_both_devices() -> None:
    async with running_two(cpu=costs(0.005, 1), npu=costs(0.005, 1)) as (batcher, cpu, npu):
        task = asyncio.create_task(batcher.embed(texts(*[500] * 50)))
        for _ in range(50):
            cpu.release()
            npu.release()

        results = await asyncio.wait_for(task, WAIT_SECONDS)
        assert {device for _, device in results} == {"cpu", "npu"}
        assert [float(vector[0]) for vector, _ in results] == [500.0] * 50


async def test_the_slower_device_takes_over_while_the_faster_one_is_busy_for_longer() -> None:
    async with running_two(cpu=costs(0.005, 2), npu=costs(0.002, 1)) as (batcher, cpu, npu):
        npu.expected_seconds = 60.0
        task = asyncio.create_task(devices_of(batcher, 10))
        cpu.release()

        assert await asyncio.wait_for(task, WAIT_SECONDS) == {"cpu"}


async def test_a_forced_device_takes_what_it_can_and_the_other_what_is_too_long_for_it() -> None:
    async with running_two(costs(0.001, 1), costs(0.9, 90), forced="npu") as (batcher, cpu, npu):
        npu.usable_tokens = 64
        task = asyncio.create_task(devices_of(batcher, 10, 300))
        cpu.release()
        npu.release()

        await asyncio.wait_for(task, WAIT_SECONDS)
        assert (await cpu.batch(), await npu.batch()) == ([300], [10])


async def test_texts_of_lengths_that_were_not_measured_count_as_the_nearest_measured_one() -> None:
    """An NPU without its longest graph leaves such texts to the CPU, whose table may be shorter too."""
    short = CostTable({32: Cost(0.001, 0.001)})
    async with running_two(cpu=short, npu=short) as (batcher, cpu, npu):
        npu.usable_tokens = 64
        task = asyncio.create_task(devices_of(batcher, 500))
        cpu.release()

        assert await asyncio.wait_for(task, WAIT_SECONDS) == {"cpu"}


async def test_a_bug_in_a_device_fails_its_batch_and_not_the_next_one() -> None:
    async with running() as (batcher, device):
        device.release(ZeroDivisionError("bug"))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(embed(batcher, 5), WAIT_SECONDS)
        device.release()

        assert await asyncio.wait_for(embed(batcher, 6), WAIT_SECONDS) == [6.0]


async def test_texts_of_a_failed_batch_stand_in_line_once() -> None:
    async with running() as (batcher, device):
        task = asyncio.create_task(embed(batcher, 5, 6, 300))
        await device.batch()
        device.release(DeviceFailed("first try"))
        again = await device.batch()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert again == [300]
        assert batcher.waiting == 0


async def test_no_request_fails_because_of_the_npu() -> None:
    async with running_two(costs(0.005, 5), costs(0.001, 1)) as (batcher, cpu, npu):
        task = asyncio.create_task(devices_of(batcher, 10))
        for _ in range(5):
            npu.release(DeviceFailed("again"))
        for _ in range(5):
            await npu.batch()
        npu.usable_tokens = 0  # what the real one does at its first failure
        npu.release(DeviceFailed("the last time"))
        cpu.release()

        assert await asyncio.wait_for(task, WAIT_SECONDS) == {"cpu"}


async def test_when_every_device_is_lost_those_who_wait_are_told() -> None:
    async with running() as (batcher, device):
        device.usable_tokens = 0

        with pytest.raises(WorkerUnavailable, match="switched off"):
            await asyncio.wait_for(embed(batcher, 5), WAIT_SECONDS)


async def test_batches_shorter_than_a_tick_of_the_clock_are_all_answered_and_rightly_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`time.monotonic` ticks every 15.6 ms on Windows; a batch of the NPU takes 2 to 8."""
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() // TICK_SECONDS * TICK_SECONDS)
    async with running_two(cpu=costs(0.1, 100), npu=costs(0.004, 3)) as (batcher, _, npu):
        for _ in range(40):
            task = asyncio.create_task(devices_of(batcher, 20))
            await npu.batch()
            npu.release()

            assert await asyncio.wait_for(task, WAIT_SECONDS) == {"npu"}

    assert batcher.shares["npu", 32].actual_seconds > 0


async def test_the_time_that_texts_wait_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr(batcher_module, "time", SimpleNamespace(perf_counter=lambda: now))
    async with running() as (batcher, device):
        first = asyncio.create_task(embed(batcher, 5))
        await device.batch()
        others = asyncio.create_task(embed(batcher, 9, 9))
        await settled(batcher, 2)
        now += 3
        device.release()
        await device.batch()
        now += 1
        device.release()
        await asyncio.gather(first, others)

    assert [share.queue_seconds for share in batcher.shares.values()] == [6.0]  # two texts, 3 s each
