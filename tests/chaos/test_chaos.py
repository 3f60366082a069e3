"""Random harm to a real gateway, one kind after the other: what comes is right or says when to come again.

The seed is printed; CHAOS_SEED repeats a run.
"""

import asyncio
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path

import psutil
import pytest

from engine.daemon import stop
from engine.errors import EngineError
from engine.settings import Home
from engine.types import ChatRequest, EmbedRequest, Message, Sampling
from tests.chaos.gateway import HEAL_SECONDS, Harmed

BGE = "bge-small-en-v1.5"
STORY = ChatRequest((Message("user", "Tell me a long story."),), sampling=Sampling(max_tokens=300))
LONG_SECONDS = 600.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")


async def kill_embedder(harmed: Harmed) -> None:
    _signal(harmed.worker("engine.embedding.cpu.cpu_worker"), signal.SIGKILL)


async def stop_embedder(harmed: Harmed) -> None:
    _signal(harmed.worker("engine.embedding.cpu.cpu_worker"), signal.SIGSTOP)


async def kill_chat(harmed: Harmed) -> None:
    _signal(harmed.worker("engine.chat.chat_worker"), signal.SIGKILL)


async def stop_chat(harmed: Harmed) -> None:
    _signal(harmed.worker("engine.chat.chat_worker"), signal.SIGSTOP)


async def kill_gateway(harmed: Harmed) -> None:
    if pid := await harmed.gateway_pid():
        _signal(psutil.Process(pid), signal.SIGKILL)


async def damage_the_embedding_model(harmed: Harmed) -> None:
    """Same size, other bytes; its worker must then read it again."""
    file = harmed.home.models / BGE / "model.onnx"
    with suppress(FileNotFoundError):
        content = bytearray(file.read_bytes())
        content[harmed.random.randrange(len(content))] ^= 0xFF
        file.unlink()
        file.write_bytes(content)
    await kill_embedder(harmed)


async def delete_all_but_the_models(harmed: Harmed) -> None:
    """Lock and endpoint file with it. (Models are fetched again, which a test does without.)"""
    for each in harmed.home.root.iterdir():
        if each.is_dir() and each != harmed.home.models:
            shutil.rmtree(each, ignore_errors=True)
    await harmed.random.choice((kill_embedder, kill_chat))(harmed)
    async with asyncio.timeout(HEAL_SECONDS):
        while await harmed.gateway_pid() is None:
            await asyncio.sleep(0.1)


async def leave_in_the_middle(harmed: Harmed) -> None:
    for _ in range(3):
        with suppress(EngineError):
            async with aclosing(harmed.client.chat(STORY)) as events:
                await anext(events)
                await anext(events)


async def crowd(harmed: Harmed) -> None:
    texts = [tuple(f"text {n} of {caller}" for n in range(200)) for caller in range(8)]
    await asyncio.gather(*(harmed.client.embed(EmbedRequest(each)) for each in texts), return_exceptions=True)


async def load_and_unload(harmed: Harmed) -> None:
    with suppress(EngineError):
        await harmed.client.unload(BGE)
        await harmed.client.load(BGE)


HARM: tuple[Callable[[Harmed], Awaitable[None]], ...] = (
    kill_embedder,
    stop_embedder,
    kill_chat,
    stop_chat,
    kill_gateway,
    damage_the_embedding_model,
    delete_all_but_the_models,
    leave_in_the_middle,
    crowd,
    load_and_unload,
)


def _signal(process: psutil.Process | None, number: signal.Signals) -> None:
    if process:
        with suppress(psutil.Error):
            process.send_signal(number)


@pytest.fixture
async def home(models_home: Home, tmp_path: Path) -> AsyncGenerator[Home]:
    home = Home(tmp_path / "home")
    shutil.copytree(models_home.models, home.models, copy_function=os.link)
    home.config_file.write_text("embedding_cache_mb = 0\n")  # every text is computed
    yield home
    await stop(home)


async def suffer(harmed: Harmed, step: Callable[[Harmed], Awaitable[None]]) -> None:
    await step(harmed)
    seconds = await harmed.heal()
    print(f"{step.__name__}: healed in {seconds:.1f} s; {dict(harmed.answers)}")  # noqa: T201
    assert len(await harmed.gateways()) == 1
    assert await harmed.orphans() == []
    assert harmed.wrong == []


async def test_a_gateway_that_is_harmed_at_random_answers_rightly_or_says_when_to_come_again(
    home: Home,
) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "3"))
    print(f"seed {seed}")  # noqa: T201

    async with Harmed(home, seed) as harmed:
        for step in random.Random(seed).sample(HARM, len(HARM)):
            await suffer(harmed, step)

    assert harmed.answers["vector"] > sum(harmed.answers.values()) / 2


@pytest.mark.slow
async def test_ten_minutes_of_harm(home: Home) -> None:
    seed = int(os.environ.get("CHAOS_SEED", time.time()))
    print(f"seed {seed}")  # noqa: T201
    choose, until = random.Random(seed), time.monotonic() + LONG_SECONDS
    async with Harmed(home, seed) as harmed:
        while time.monotonic() < until:
            await suffer(harmed, choose.choice(HARM))
