"""Models whose files have changed on disk: said, fetched again where that is possible, never served."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from engine.engine import Engine
from engine.errors import Unavailable
from engine.hosting import fleet, install
from engine.models import store as store_module
from engine.models.catalogue import Catalogue
from engine.models.pull import import_gguf
from engine.models.store import InstalledModel, ModelStore
from engine.settings import Home, Settings
from engine.types import ChatRequest, EmbedRequest, Message, Sampling
from tests.golden import GOLDEN

BGE = "bge-small-en-v1.5"
HELLO = ChatRequest((Message("user", "Hello"),), sampling=Sampling(max_tokens=1))


def damage(file: Path) -> None:
    """Same size, other bytes; a file of its own, because the tests' homes share theirs."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.unlink()
    file.write_bytes(content)


@pytest.fixture
def home(models_home: Home, tmp_path: Path) -> Home:
    home = Home(tmp_path)
    shutil.copytree(models_home.models, home.models, copy_function=os.link)
    return home


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def embedded(engine: Engine, text: str) -> NDArray[np.float32]:
    """Asked for as a client does that is told to come again."""
    async with asyncio.timeout(120):
        while True:
            try:
                return (await engine.embed(EmbedRequest((text,)))).vectors
            except Unavailable:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
async def test_a_damaged_embedding_model_is_fetched_again_before_any_text_meets_it(
    home: Home, name: str
) -> None:
    damage(home.models / BGE / name)
    item = GOLDEN["items"][0]
    async with Engine.start(Settings(home, device="cpu")) as engine:
        vectors = await embedded(engine, item["text"])

    assert np.abs(vectors[0][:5] - item["first5"]).max() < 0.005
    assert ModelStore(home.models).altered(BGE) == ()


async def test_a_damaged_model_of_the_users_own_is_refused_and_says_how_to_get_it_back(
    models_home: Home, smollm2_gguf: Path, tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "models")
    mine = import_gguf(store, smollm2_gguf, model_id="mine")
    shutil.copytree(models_home.models / BGE, store.folder / BGE, copy_function=os.link)
    damage(mine.folder / "model.onnx.data")
    async with Engine.start(Settings(Home(tmp_path), device="cpu", chat="mine")) as engine:
        await eventually(lambda: engine.health().status == "degraded")

        with pytest.raises(Unavailable, match=r"mine.* is damaged.* `npu-gateway import FILE"):
            await engine.complete(HELLO)


async def test_damage_that_comes_while_a_model_serves_is_not_loaded_when_its_worker_starts_again(
    home: Home,
) -> None:
    item = GOLDEN["items"][0]
    async with Engine.start(Settings(home, device="cpu", embedding_cache_mb=0)) as engine:
        await engine.embed(EmbedRequest(("warm",)))
        damage(home.models / BGE / "model.onnx")
        (worker,) = [
            c for c in psutil.Process().children() if "engine.embedding.cpu.cpu_worker" in c.cmdline()
        ]
        worker.kill()
        vectors = await embedded(engine, item["text"])

    assert np.abs(vectors[0][:5] - item["first5"]).max() < 0.005


async def test_damage_that_comes_just_after_a_crash_was_looked_into_is_found_all_the_same(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def verified_then_damaged(catalogue: Catalogue, model: InstalledModel) -> None:
        monkeypatch.undo()
        await install.verified(catalogue, model)
        damage(home.models / BGE / "model.onnx")

    item = GOLDEN["items"][0]
    async with Engine.start(Settings(home, device="cpu", embedding_cache_mb=0)) as engine:
        await engine.embed(EmbedRequest(("warm",)))
        monkeypatch.setattr(fleet, "verified", verified_then_damaged)
        (worker,) = [
            c for c in psutil.Process().children() if "engine.embedding.cpu.cpu_worker" in c.cmdline()
        ]
        worker.kill()
        vectors = await embedded(engine, item["text"])

    assert np.abs(vectors[0][:5] - item["first5"]).max() < 0.005


async def test_a_large_model_that_turns_out_to_be_damaged_is_taken_out_of_memory(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_verify = asyncio.Event()
    loop = asyncio.get_running_loop()

    def verify(store: ModelStore, model_id: str) -> None:
        asyncio.run_coroutine_threadsafe(may_verify.wait(), loop).result(60)
        original(store, model_id)

    original = ModelStore.verify
    monkeypatch.setattr(store_module.ModelStore, "verify", verify)
    for module in (install, fleet):  # as if it were too large to be verified first
        monkeypatch.setattr(module, "VERIFIED_FIRST_BYTES", 0)
    async with Engine.start(Settings(home, device="cpu")) as engine:
        await engine.complete(HELLO)
        damage(home.models / "smollm2-135m-instruct" / "model.onnx.data")

        may_verify.set()

        await eventually(lambda: engine.model("smollm2-135m-instruct").state != "ready")
