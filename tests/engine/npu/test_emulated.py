"""The whole way to the NPU and back, on the emulator of the real QNN provider."""

import asyncio
import base64
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.embedding.npu.device import find_npu
from engine.engine import Engine
from engine.settings import Home, Settings
from engine.types import EmbedRequest
from tests.golden import GOLDEN


@pytest.fixture
def home(bge_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """With the embedding model, where the NPU is emulated."""
    monkeypatch.setenv("NPU_GATEWAY_EMULATE_NPU", "1")
    if find_npu().npu is None:
        pytest.skip("the HTP emulator is part of the x86-64 Linux wheel only")
    home = Home(tmp_path / "home")
    shutil.copytree(bge_folder, home.models / bge_folder.name)
    return home


async def test_short_golden_texts_run_on_the_npu_and_say_so(home: Home) -> None:
    items = [item for item in GOLDEN["items"] if item["tokens"] <= 32][:4]
    expected = np.array([np.frombuffer(base64.b64decode(i["vector_f32_base64"]), np.float32) for i in items])

    async with Engine.start(Settings(home, device="npu")) as engine:
        async with asyncio.timeout(240):
            while engine.model("bge-small-en-v1.5").device != "npu":
                await asyncio.sleep(0.1)
        result = await engine.embed(EmbedRequest(tuple(item["text"] for item in items)))
        health = engine.health()

    assert (result.vectors * expected).sum(axis=1).min() >= 0.999
    assert (result.devices, result.npu_emulated) == (("npu",), True)
    assert (health.npu.available, health.npu.emulated) == (True, True)


@pytest.mark.slow  # two minutes of emulation on an idle machine
async def test_forty_ragged_texts_each_get_their_own_vector(home: Home) -> None:
    """A stock graph gives wrong rows on the NPU at batch sizes above 1: only a look at every row shows it."""
    texts = tuple(f"Text {n} is about {'very ' * (n % 20)}different things: {n * n}." for n in range(40))

    async with Engine.start(Settings(home, device="cpu")) as engine:
        expected = (await engine.embed(EmbedRequest(texts))).vectors
    async with Engine.start(Settings(home, device="npu")) as engine:
        async with asyncio.timeout(600):
            while engine.model("bge-small-en-v1.5").device != "npu":
                await asyncio.sleep(0.1)
        result = await engine.embed(EmbedRequest(texts))

    similarity = result.vectors @ expected.T
    assert result.devices == ("npu",)
    assert similarity.diagonal().min() >= 0.995  # the CPU's int8 graph is itself 0.997 from float32
    assert similarity.argmax(axis=1).tolist() == list(range(40))
