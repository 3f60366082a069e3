"""What people and programs who run the gateway see."""

import asyncio
from dataclasses import asdict

import httpx2
import pytest

from engine.types import ModelState
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, EMBEDDER, FakeEngine, soon
from tests.openai_shim.http.test_guard import ENDPOINT

TOKEN = {"authorization": f"Bearer {ENDPOINT.token}"}
CHAT = {"model": CHATTER, "messages": [{"role": "user", "content": "Hello"}]}


async def test_health_is_the_engines(running: Gateway) -> None:
    expected = asdict(running.engine.health()) | {"models": [asdict(m) for m in running.engine.models()]}

    assert (await running.http.get("/health")).json() == expected


async def test_liveness_says_nothing_but_that(running: Gateway) -> None:
    assert (await running.http.get("/healthz")).json() == {"status": "ok"}


async def test_ready_means_that_texts_can_be_embedded() -> None:
    async with gateway(FakeEngine(states={CHATTER: "loading"})) as running:
        reply = await running.http.get("/readyz")

    assert (reply.status_code, reply.json()) == (
        200,
        {"status": "ready", "models": {EMBEDDER: "ready", CHATTER: "loading"}},
    )


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("loading", "tiny-embedder is loading: half fetched."),
        ("failed", "tiny-embedder is failed: half fetched."),
    ],
)
async def test_unready_says_what_is_missing_and_when_to_ask_again(state: ModelState, message: str) -> None:
    async with gateway(FakeEngine(states={EMBEDDER: state})) as running:
        reply = await running.http.get("/readyz")

    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.json()["error"]["message"] == message


async def test_models_are_listed_with_what_a_client_needs_to_choose(running: Gateway) -> None:
    chatter = {
        "id": CHATTER,
        "object": "model",
        "created": 0,
        "owned_by": "npu-gateway",
        "kind": "chat",
        "state": "ready",
        "device": "cpu",
        "context_length": 4096,
        "dimensions": None,
    }

    listed = (await running.http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [EMBEDDER, CHATTER]
    assert listed["data"][0]["created"] == 1_700_000_000  # when it was installed
    assert listed["data"][1] == (await running.http.get(f"/v1/models/{CHATTER}")).json() == chatter


async def test_the_openai_client_reads_the_models(running: Gateway) -> None:
    listed = [model.id async for model in running.openai.models.list()]

    assert listed == [EMBEDDER, CHATTER]
    assert (await running.openai.models.retrieve(CHATTER)).id == CHATTER


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/"])
async def test_a_slash_at_the_end_makes_no_difference(running: Gateway, path: str) -> None:
    assert (await running.http.get(path)).status_code == 200


async def test_no_header_is_empty(running: Gateway) -> None:
    reply = await running.http.get("/v1/models")

    assert [name for name, value in reply.headers.items() if not value] == []


async def test_the_gateway_tells_its_own_processes_which_one_it_is() -> None:
    async with gateway(endpoint=ENDPOINT) as running:
        reply = await running.http.get("/internal/identity", headers=TOKEN)

    assert reply.json() == {"instance": "i1", "version": "0.1.0", "api": 1}


async def test_a_closing_gateway_finishes_what_runs_and_takes_nothing_new() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine, endpoint=ENDPOINT) as running:
        answer = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT))
        await soon(engine.started.wait())

        asked = await running.http.post("/internal/shutdown", headers=TOKEN)
        refused = await running.http.post("/v1/chat/completions", json=CHAT)
        assert running.context.closing.is_set()
        engine.writing.set()

        assert asked.status_code == 202
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert (await soon(answer)).json()["choices"][0]["message"]["content"] == "Hello"


async def test_a_stream_that_is_running_when_the_server_ends_is_finished() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with httpx2.AsyncClient(trust_env=False) as http:
        async with gateway(engine) as running:
            url = f"http://127.0.0.1:{running.port}/v1/chat/completions"
            answer = asyncio.create_task(http.post(url, json=CHAT | {"stream": True}))
            await soon(engine.started.wait())
            asyncio.get_running_loop().call_soon(engine.writing.set)

        assert (await soon(answer)).text.endswith("data: [DONE]\n\n")


async def test_what_does_not_finish_in_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_shim.serve.server.DRAIN_SECONDS", 0.05)
    engine = FakeEngine()
    engine.reading.clear()
    async with httpx2.AsyncClient(trust_env=False) as http:
        async with gateway(engine) as running:
            url = f"http://127.0.0.1:{running.port}/v1/chat/completions"
            answer = asyncio.create_task(http.post(url, json=CHAT))
            await soon(engine.started.wait())

        with pytest.raises(httpx2.TransportError):
            await soon(answer)
    assert engine.ended.is_set()
