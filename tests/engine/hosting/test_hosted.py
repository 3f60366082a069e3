"""When a model is loaded and when its memory is given back, with a model that a test can hold."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.hosting.hosted import HostedModel
from engine.hosting.stay import ReportProgress
from engine.hosting.tally import Tally
from engine.models.store import InstalledModel
from engine.types import Device, ModelState

BRIEFLY = 0.001


class Model:
    installed = InstalledModel("m", "chat", Path("m"), "0", 100, None, "gguf:m", 0)
    state: ModelState = "ready"
    detail = None
    device: Device = "cpu"
    degraded = False
    worker_failures = 0
    preparing = False
    in_flight = 0
    npu = None
    work = None
    context_tokens = 100

    async def ready(self) -> None:
        pass

    def rss_bytes(self) -> int:
        return 0


class Shelf:
    """Where the models come from. loads: how many came; may_come, may_leave: while not set, it goes on."""

    def __init__(self) -> None:
        self.loads = 0
        self.error: EngineError | None = None
        self.leaving, self.gone, self.may_leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_come = asyncio.Event()
        self.may_leave.set()
        self.may_come.set()

    @contextlib.asynccontextmanager
    async def bring_up(self, report: ReportProgress) -> AsyncGenerator[Model]:
        if self.error:
            raise self.error
        await self.may_come.wait()
        self.loads += 1
        yield Model()
        self.leaving.set()
        await self.may_leave.wait()
        self.gone.set()


@contextlib.asynccontextmanager
async def hosted(shelf: Shelf, keep_alive_seconds: float | None = None) -> AsyncGenerator[HostedModel]:
    """In a test that hangs, no longer than this."""
    model = HostedModel("m", "chat", shelf.bring_up, keep_alive_seconds=keep_alive_seconds)
    async with asyncio.timeout(10):
        yield model
        await model.close()


async def test_a_model_that_nobody_uses_any_more_is_unloaded() -> None:
    shelf = Shelf()
    async with hosted(shelf, BRIEFLY) as model:
        async with model.in_use():
            pass
        await shelf.gone.wait()


async def test_a_model_that_was_loaded_but_never_used_is_unloaded() -> None:
    shelf = Shelf()
    async with hosted(shelf, BRIEFLY) as model:
        model.start()
        await shelf.gone.wait()


async def test_a_model_that_loads_for_longer_than_it_is_kept_is_unloaded_too() -> None:
    shelf = Shelf()
    shelf.may_come.clear()
    async with hosted(shelf, BRIEFLY) as model:
        model.start()
        await asyncio.sleep(20 * BRIEFLY)  # its keep-alive passes
        assert model.state == "loading"
        shelf.may_come.set()
        await shelf.gone.wait()


async def test_a_model_in_use_outlives_its_keep_alive() -> None:
    shelf = Shelf()
    async with hosted(shelf, BRIEFLY) as model:
        async with model.in_use():
            async with model.in_use():
                pass
            await asyncio.sleep(20 * BRIEFLY)  # time for what must not happen
            assert model.state == "ready"
        await shelf.gone.wait()


async def test_without_a_keep_alive_it_stays() -> None:
    shelf = Shelf()
    async with hosted(shelf) as model:
        await model.load()
        await asyncio.sleep(20 * BRIEFLY)
        assert model.state == "ready"


async def test_a_request_that_comes_while_the_memory_is_given_back_loads_it_again() -> None:
    shelf = Shelf()
    shelf.may_leave.clear()
    async with hosted(shelf, BRIEFLY) as model:
        await model.load()
        await shelf.leaving.wait()
        requests = [asyncio.create_task(use(model)) for _ in range(3)]
        asyncio.get_running_loop().call_soon(shelf.may_leave.set)

        assert await asyncio.gather(*requests) == ["ready"] * 3
        assert shelf.loads == 2


async def test_unload_waits_for_the_requests_that_run() -> None:
    shelf = Shelf()
    async with hosted(shelf) as model:
        async with model.in_use():
            await model.unload()
            assert model.state == "ready"
        await shelf.gone.wait()


async def test_an_idle_model_is_gone_when_unload_returns() -> None:
    shelf = Shelf()
    async with hosted(shelf) as model:
        await model.load()

        await model.unload()

        assert shelf.gone.is_set()
        assert model.state == "unloaded"


async def test_load_calls_an_unload_off_that_still_waits() -> None:
    shelf = Shelf()
    async with hosted(shelf) as model:
        async with model.in_use():
            await model.unload()
            await model.load()

        assert (model.state, shelf.loads) == ("ready", 1)


async def test_what_is_not_loaded_can_be_unloaded() -> None:
    async with hosted(Shelf()) as model:
        await model.unload()

        assert model.state == "unloaded"


async def test_load_tries_again_what_has_just_failed() -> None:
    shelf = Shelf()
    shelf.error = EngineError("no file")
    async with hosted(shelf, BRIEFLY) as model:
        with pytest.raises(EngineError, match="no file"):
            await model.load()
        assert (model.state, model.detail) == ("failed", "no file")
        shelf.error = None

        await model.load()

        assert model.state == "ready"


async def use(model: HostedModel) -> str:
    async with model.in_use():
        return model.state


def test_the_speed_is_that_of_the_last_minute() -> None:
    seconds = [100.0]
    tally = Tally(lambda: seconds[0])
    tally.count_tokens(600)
    seconds[0] = 130.5
    tally.count_tokens(40)
    tally.count_tokens(20)
    speeds = []
    for seconds[0] in (159.9, 160.0, 189.9, 190.0):
        speeds.append(tally.tokens_per_second)

    assert (speeds, tally.tokens) == ([11.0, 1.0, 1.0, 0.0], 660)
