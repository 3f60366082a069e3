"""When the engine loads real models and gives their memory back, and what it says of them."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.engine import Engine
from engine.errors import ContextTooLong, ModelNotFound
from engine.models.store import ModelStore
from engine.settings import Home, Settings
from engine.types import ChatPiece, ChatRequest, EmbedRequest, Message, ModelState, Sampling
from tests.engine.cli.commands import environment, npu_gateway

SMALL = "smollm2-135m-instruct"
LARGE = "large"
"""Not one of the embedded models, so it is unloaded when idle."""
EMBEDDER = "bge-small-en-v1.5"
CAPITAL = (Message("user", "What is the capital of France?"),)
SHORT = Sampling(temperature=0, max_tokens=4)
BRIEFLY = 0.05 / 60
TIMEOUT_SECONDS = 100


def with_large_model(models_home: Home, folder: Path) -> Home:
    """A second chat model beside the embedded ones, which is SmolLM2 under another name."""
    home = Home(folder)
    shutil.copytree(models_home.models, home.models, copy_function=os.link)
    shutil.copytree(models_home.models / SMALL, home.models / LARGE, copy_function=os.link)
    manifest = home.models / LARGE / "manifest.json"
    renamed = json.loads(manifest.read_text(encoding="utf-8")) | {"id": LARGE}
    manifest.unlink()  # it is a link to the original
    manifest.write_text(json.dumps(renamed), encoding="utf-8")
    return home


@pytest.fixture
def home(models_home: Home, tmp_path: Path) -> Home:
    return with_large_model(models_home, tmp_path)


@pytest.fixture(scope="module")
async def engine(models_home: Home, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Engine]:
    home = with_large_model(models_home, tmp_path_factory.mktemp("home"))
    async with Engine.start(Settings(home, device="cpu")) as engine:
        yield engine


@asynccontextmanager
async def started(home: Home, **changes: Any) -> AsyncGenerator[Engine]:
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        Engine.start(Settings(home, **{"device": "cpu"} | changes)) as engine,
    ):
        yield engine


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def chat_workers() -> int:
    """How many models answer in processes of this one; the small model always does."""
    living = [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]
    return sum("engine.chat.chat_worker" in child.cmdline() for child in living)


async def answer(engine: Engine, model: str | None = None) -> str:
    return (await engine.complete(ChatRequest(CAPITAL, model, SHORT))).text


def state(engine: Engine, model_id: str) -> ModelState:
    return engine.model(model_id).state


async def test_an_idle_large_model_leaves_no_process_and_comes_back_for_the_next_request(home: Home) -> None:
    async with started(home, keep_alive_minutes=BRIEFLY) as engine:
        first = await answer(engine, LARGE)
        await eventually(lambda: state(engine, LARGE) == "unloaded")
        unloaded = engine.model(LARGE)
        await eventually(lambda: chat_workers() == 1)
        again = await answer(engine, LARGE)

        assert (unloaded.rss_bytes, unloaded.device, unloaded.requests) == (0, None, 1)
        assert again == first


async def test_the_embedded_models_stay_when_idle(home: Home) -> None:
    async with started(home, keep_alive_minutes=BRIEFLY) as engine:
        await engine.embed(EmbedRequest(("text",)))
        await answer(engine, SMALL)
        await answer(engine, LARGE)
        await eventually(lambda: state(engine, LARGE) == "unloaded")  # all others were idle for longer

        assert {model.id: model.state for model in engine.models()} == {
            EMBEDDER: "ready",
            SMALL: "ready",
            LARGE: "unloaded",
        }
        assert engine.health().status == "ok"


async def test_a_request_that_meets_the_unloading_is_answered(home: Home) -> None:
    async with started(home, keep_alive_minutes=BRIEFLY) as engine:
        first = await answer(engine, LARGE)
        await eventually(lambda: state(engine, LARGE) == "unloaded")  # from now on its process is being ended
        meeting = await asyncio.gather(*(answer(engine, LARGE) for _ in range(3)))

        assert meeting == [first] * 3


async def test_two_chat_models_answer_at_once(engine: Engine) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        small, large = await asyncio.gather(answer(engine, SMALL), answer(engine, LARGE))

    assert small == large
    assert (state(engine, SMALL), state(engine, LARGE)) == ("ready", "ready")


async def test_load_and_unload_take_effect_before_they_return(engine: Engine) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await engine.unload(LARGE)  # another test may have loaded it
        loaded = await engine.load(LARGE)
        assert (loaded.state, chat_workers()) == ("ready", 2)

        unloaded = await engine.unload(LARGE)
        assert (unloaded.state, chat_workers()) == ("unloaded", 1)


async def test_unload_lets_a_running_answer_finish(engine: Engine) -> None:
    request = ChatRequest(CAPITAL, LARGE, Sampling(temperature=0, max_tokens=40))
    async with asyncio.timeout(TIMEOUT_SECONDS), aclosing(engine.chat(request)) as events:
        whole = (await engine.complete(request)).text
        await anext(events)
        meanwhile = (await engine.unload(LARGE)).state
        pieces = [event.text async for event in events if isinstance(event, ChatPiece)]
    await eventually(lambda: state(engine, LARGE) == "unloaded")

    assert (meanwhile, "".join(pieces)) == ("ready", whole)


async def test_an_unloaded_embedding_model_comes_back_for_the_next_text(engine: Engine) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await engine.embed(EmbedRequest(("text",)))

        assert (await engine.unload(EMBEDDER)).state == "unloaded"
        assert engine.health().npu.reason == "no embedding model is loaded"
        await engine.embed(EmbedRequest(("text",)))
        assert state(engine, EMBEDDER) == "ready"


async def test_what_is_not_installed_cannot_be_loaded(engine: Engine) -> None:
    with pytest.raises(ModelNotFound, match="npu-gateway pull phi-3-mini-4k-instruct"):
        await engine.load("phi-3-mini-4k-instruct")


async def test_a_model_removed_after_it_was_unloaded_is_gone(home: Home) -> None:
    async with started(home) as engine:
        await engine.load(LARGE)
        await engine.unload(LARGE)
        ModelStore(home.models).remove(LARGE)

        with pytest.raises(ModelNotFound):
            await answer(engine, LARGE)
        assert [model.id for model in engine.health().models] == [EMBEDDER, SMALL]


async def test_the_settings_bound_the_context(home: Home) -> None:
    async with started(home, chat_context_tokens=256) as engine:
        long = ChatRequest((Message("user", "word " * 300),))
        with pytest.raises(ContextTooLong, match="reads at most 256"):
            await engine.complete(long)
        assert engine.model(SMALL).context_tokens == 256


async def test_the_memory_for_keys_and_values_bounds_the_context(home: Home) -> None:
    async with started(home, chat_kv_mb=192) as engine:
        await engine.load(SMALL)

        assert (
            engine.model(SMALL).context_tokens == 192 * 2**20 // 46_080
        )  # float32, 30 layers, 3 heads of 64


async def test_tokens_of_the_last_minute_show_as_speed(home: Home) -> None:
    async with started(home) as engine:
        assert engine.model(SMALL).tokens_per_second == 0
        usage = (await engine.complete(ChatRequest(CAPITAL, SMALL, SHORT))).usage
        counts = (await engine.embed(EmbedRequest(("text", "more text")))).token_counts

        tokens = {model.id: (model.tokens, model.tokens_per_second) for model in engine.models()}
        written = usage.prompt_tokens + usage.completion_tokens
        assert tokens == {
            EMBEDDER: (sum(counts), round(sum(counts) / 60, 3)),
            SMALL: (written, round(written / 60, 3)),
            LARGE: (0, 0),
        }


def test_the_commands_load_unload_and_rm_go_together(gateway_home: Home) -> None:
    def run(*arguments: str) -> str:
        done = npu_gateway(*arguments, env=environment(gateway_home.root))
        return done.stdout + done.stderr

    assert run("rm", SMALL) == (
        f"npu-gateway: The running gateway uses {SMALL}. Run `npu-gateway unload {SMALL}` first.\n"
    )
    assert run("unload", SMALL) == f"{SMALL} is unloaded.\n"
    assert run("load", SMALL) == f"{SMALL} is ready.\n"
    assert run("load", "nope").startswith("npu-gateway: No model is called 'nope'.")


def test_unload_without_a_gateway_says_that_none_runs(tmp_path: Path) -> None:
    done = npu_gateway("unload", SMALL, env=environment(tmp_path))

    assert done.returncode == 1
    assert "No gateway is running." in done.stderr
