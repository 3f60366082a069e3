"""The engine with its real models and real worker processes."""

import asyncio
import base64
import contextlib
import os
import shutil
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.chat.model import ChatModel
from engine.embedding.model import EmbeddingModel
from engine.engine import Engine
from engine.errors import BadInput, ContextTooLong, ModelNotFound, Unavailable, WorkerCrashed
from engine.models.store import ModelStore
from engine.settings import Home, Settings
from engine.types import ChatPiece, ChatRequest, ChatStarted, EmbedRequest, Message, ModelState, Sampling
from tests.golden import GOLDEN

CAPITAL = (Message("user", "What is the capital of France?"),)
COUNT = (Message("user", "Count from 1 to 500, with commas."),)
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
async def engine(models_home: Home) -> AsyncGenerator[Engine]:
    async with Engine.start(Settings(models_home, embedding_cache_mb=0)) as engine:
        yield engine


@pytest.fixture
async def mortal(models_home: Home, tmp_path: Path) -> AsyncGenerator[Engine]:
    """An engine of its own for a test that kills its workers."""
    home = Home(tmp_path)
    shutil.copytree(models_home.models, home.models, copy_function=os.link)
    async with Engine.start(Settings(home, device="cpu")) as engine:
        yield engine


def worker(engine: Engine, kind: str) -> psutil.Process:
    """The process that holds this engine's model."""
    (hosted,) = (each for each in engine._fleet._hosted.values() if each.kind == kind)
    model = hosted.model
    if isinstance(model, EmbeddingModel):
        pid = model._cpu.worker.pid
    else:
        assert isinstance(model, ChatModel)
        pid = model._worker.pid
    assert pid is not None
    return psutil.Process(pid)


async def eventually(condition: Callable[[], bool], timeout_seconds: float = 30) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def disk_use(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What this thread, that of the event loop, opens, lists and looks at during the block."""
    here, looks, watching = threading.get_ident(), list[str](), True
    stat = os.stat

    def audited(event: str, arguments: tuple[object, ...]) -> None:  # it cannot be taken off again
        if not watching or threading.get_ident() != here:
            return
        if event in ("open", "os.listdir", "os.scandir") and not str(arguments[0]).startswith("/proc/"):
            looks.append(f"{event} {arguments[0]}")

    def watched(path: str, *arguments: object, **options: object) -> os.stat_result:
        if threading.get_ident() == here:
            looks.append(f"os.stat {path}")
        return stat(path, *arguments, **options)  # type: ignore[arg-type]

    sys.addaudithook(audited)
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", watched)
        yield looks
    watching = False


async def test_models_in_memory_serve_without_a_look_at_the_disk(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve_each_way() -> None:
        for model in (None, "bge-small-en-v1.5"):
            await engine.embed(EmbedRequest(("a text",), model))
        for model in (None, "smollm2-135m-instruct"):
            await engine.complete(ChatRequest(CAPITAL, model, GREEDY))

    await serve_each_way()
    with disk_use(monkeypatch) as looks:
        await serve_each_way()

    assert looks == []


async def test_golden_texts_get_their_vectors_and_token_counts(engine: Engine) -> None:
    items = GOLDEN["items"]
    expected = np.array([np.frombuffer(base64.b64decode(i["vector_f32_base64"]), np.float32) for i in items])

    result = await engine.embed(EmbedRequest(tuple(i["text"] for i in items), on_overflow="truncate"))

    similarity = (result.vectors * expected).sum(axis=1)
    assert result.token_counts == tuple(i["tokens"] for i in items)
    assert similarity.min() >= 0.997
    assert similarity.mean() >= 0.999


async def test_a_text_has_the_same_vector_alone_and_among_2048(engine: Engine) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    crowd = tuple(f"{text} {'again ' * (n % 20)}{n}" for n in range(2047))

    alone = await engine.embed(EmbedRequest((text,)))
    among = await engine.embed(EmbedRequest((*crowd, text)))

    assert np.abs(among.vectors[-1] - alone.vectors[0]).max() <= 1e-4


async def test_fewer_dimensions_are_the_first_ones_scaled_to_length_one(engine: Engine) -> None:
    full = await engine.embed(EmbedRequest(("a text",)))
    short = await engine.embed(EmbedRequest(("a text",), dimensions=128))

    kept = full.vectors[0, :128]
    assert np.allclose(short.vectors[0], kept / np.linalg.norm(kept), atol=1e-6)


async def test_a_query_gets_another_vector_than_a_document(engine: Engine) -> None:
    document = await engine.embed(EmbedRequest(("where is the cat",)))
    query = await engine.embed(EmbedRequest(("where is the cat",), input_type="query"))

    assert float(document.vectors[0] @ query.vectors[0]) < 0.99


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (EmbedRequest(("fine", "")), BadInput),
        (EmbedRequest(("fine", "  \n")), BadInput),
        (EmbedRequest(("word " * 600,)), ContextTooLong),
        (EmbedRequest(("fine",), dimensions=385), BadInput),
        (EmbedRequest(("fine",), model="nobody-knows"), ModelNotFound),
        (EmbedRequest(("fine",), model="smollm2-135m-instruct"), BadInput),
        (EmbedRequest(("fine",), model="phi-3-mini-4k-instruct"), ModelNotFound),
    ],
    ids=["empty", "blank", "too-long", "dimensions", "unknown-model", "chat-model", "not-installed"],
)
async def test_a_request_that_cannot_be_served_is_refused(
    engine: Engine, request_: EmbedRequest, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await engine.embed(request_)


async def test_chat_knows_the_capital_of_france(engine: Engine) -> None:
    completion = await engine.complete(ChatRequest(CAPITAL, sampling=GREEDY))

    assert "Paris" in completion.text
    assert completion.finish_reason == "stop"


async def test_an_answer_names_the_revision_that_wrote_it(engine: Engine) -> None:
    completion = await engine.complete(ChatRequest(CAPITAL, sampling=GREEDY))

    assert completion.revision == ModelStore(engine.settings.home.models).require(completion.model).revision


async def test_a_killed_embedding_worker_costs_no_request(mortal: Engine) -> None:
    await mortal.embed(EmbedRequest(("warm",)))
    victim = worker(mortal, "embedding")
    many = asyncio.create_task(mortal.embed(EmbedRequest(tuple(f"text {n} " * 50 for n in range(200)))))
    await eventually(lambda: mortal.health().queue.embedding > 0)
    victim.kill()

    result = await asyncio.wait_for(many, 60)

    assert result.vectors.shape == (200, 384)


async def test_a_killed_chat_worker_ends_its_conversations_and_serves_the_next(mortal: Engine) -> None:
    events = mortal.chat(ChatRequest(COUNT, sampling=GREEDY))
    assert isinstance(await anext(events), ChatStarted)
    assert isinstance(await anext(events), ChatPiece)
    worker(mortal, "chat").kill()

    with pytest.raises(WorkerCrashed):
        async for _ in events:
            pass
    again = await asyncio.wait_for(mortal.complete(ChatRequest(CAPITAL, sampling=GREEDY)), 60)
    assert "Paris" in again.text


async def test_a_worker_that_keeps_crashing_says_so_and_is_back_when_it_no_longer_does(
    mortal: Engine,
) -> None:
    await mortal.embed(EmbedRequest(("warm",)))

    async def becomes(state: ModelState) -> None:
        await eventually(lambda: mortal.model("bge-small-en-v1.5").state == state)

    for after_crash in ("loading", "failed"):
        await becomes("ready")
        worker(mortal, "embedding").kill()
        await becomes(after_crash)

    assert mortal.health().status == "degraded"
    with pytest.raises(Unavailable, match=r"ended with .*is tried again by itself.*`npu-gateway load`"):
        await mortal.embed(EmbedRequest(("text",)))
    await eventually(lambda: mortal.health().status == "ok")
    assert (await mortal.embed(EmbedRequest(("text",)))).devices == ("cpu",)


async def test_the_work_of_an_embedding_model_is_counted(mortal: Engine) -> None:
    for _ in range(2):
        await mortal.embed(EmbedRequest(("a cat", "a dog")))

    (work,) = mortal.embedding_work()
    cpu = work.devices[0]
    assert (work.model, work.cache_hits, work.cache_misses) == ("bge-small-en-v1.5", 2, 2)
    assert (cpu.device, cpu.texts, cpu.tokens, cpu.failed_batches) == ("cpu", 2, 8, 0)
    assert cpu.actual_seconds > 0


async def test_closing_a_chat_early_frees_its_place(mortal: Engine) -> None:
    events = mortal.chat(ChatRequest(COUNT, sampling=GREEDY))
    await anext(events)
    await anext(events)

    await events.aclose()

    assert mortal.health().queue.chat == 0
    assert "Paris" in (await mortal.complete(ChatRequest(CAPITAL, sampling=GREEDY))).text


async def test_the_engine_leaves_no_process_behind(models_home: Home, tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    async with Engine.start(Settings(Home(tmp_path))) as engine:  # an empty home: it begins to fetch
        await eventually(lambda: engine.model("bge-small-en-v1.5").detail is not None)

    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, alive = await asyncio.to_thread(psutil.wait_procs, left, 10)
    assert [child.cmdline() for child in alive] == []
