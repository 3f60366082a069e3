"""What callers see of an NPU that fails, with the real CPU model beside it."""

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.embedding.devices import npu as npu_device
from engine.engine import Engine
from engine.settings import Home, Settings
from engine.types import EmbedRequest

TEXT = EmbedRequest(("a text",))
WAIT_SECONDS = 60


@pytest.fixture
def bge_home(bge_folder: Path, tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    shutil.copytree(bge_folder, home.models / bge_folder.name)
    return home


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Installs a faulty worker; the file it returns heals it once it exists."""

    def install(fault: str) -> Path:
        monkeypatch.setattr(npu_device, "WORKER_MODULE", "tests.engine.npu.faulty_npu_worker")
        monkeypatch.setattr(npu_device, "HANG_SECONDS", 0.2)
        monkeypatch.setattr(npu_device, "OUT_OF_ORDER_SECONDS", 0.5)
        monkeypatch.setenv("FAULT", fault)
        monkeypatch.setenv("HEALED", str(tmp_path / "healed"))
        return tmp_path / "healed"

    return install


@asynccontextmanager
async def engine_on_npu(home: Home) -> AsyncGenerator[Engine]:
    async with Engine.start(Settings(home, device="npu", embedding_cache_mb=0)) as engine:
        await until(lambda: engine.model("bge-small-en-v1.5").state == "ready")
        await until(lambda: engine.health().npu.reason != npu_device.SEARCHING.reason)
        yield engine


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", ["fails", "hangs", "crashes"])
async def test_a_faulty_npu_costs_no_request_and_is_used_again_when_it_works(
    fault: str, bge_home: Home, broken: Callable[[str], Path]
) -> None:
    heal = broken(fault)
    async with engine_on_npu(bge_home) as engine:
        on_cpu = await asyncio.wait_for(engine.embed(TEXT), WAIT_SECONDS)
        health = engine.health()
        heal.touch()

        async with asyncio.timeout(WAIT_SECONDS):
            while "npu" not in (recovered := await engine.embed(TEXT)).devices:
                await asyncio.sleep(0.05)

    assert on_cpu.devices == ("cpu",)
    assert np.linalg.norm(on_cpu.vectors[0]) == pytest.approx(1)
    assert health.status == "degraded"
    assert health.models[0].detail is not None
    assert "out of order" in health.models[0].detail
    assert recovered.vectors[0, 0] == 1.0


async def test_left_to_itself_the_engine_measures_both_devices_and_takes_the_faster_one(
    bge_home: Home, broken: Callable[[str], Path]
) -> None:
    """The made-up NPU answers at once, so every text is faster there."""
    broken("fails").touch()
    async with Engine.start(Settings(bge_home, embedding_cache_mb=0)) as engine:
        async with asyncio.timeout(WAIT_SECONDS):
            while (result := await engine.embed(TEXT)).devices != ("npu",):
                await asyncio.sleep(0.05)
        measured = json.loads((bge_home.contexts / "calibration-bge-small-en-v1.5.json").read_text("utf-8"))

    assert result.vectors[0, 0] == 1.0
    assert {device: sorted(costs, key=int) for device, costs in measured["costs"].items()} == {
        "cpu": ["32", "64", "128", "256", "512"],
        "npu": ["32", "64", "128", "256", "512"],
    }


async def test_without_an_npu_a_forced_one_is_served_by_the_cpu_and_said_to_be_degraded(
    bge_home: Home, broken: Callable[[str], Path]
) -> None:
    broken("absent")
    async with engine_on_npu(bge_home) as engine:
        result = await asyncio.wait_for(engine.embed(TEXT), WAIT_SECONDS)

        assert (result.devices, engine.health().status) == (("cpu",), "degraded")
        assert engine.health().npu.reason == "there is none"
