"""Chat over a WebSocket, with the `websockets` client."""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus

from engine.errors import WorkerCrashed
from tests.openai_shim.chat.test_stream import constant
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, FakeEngine, soon
from tests.openai_shim.ops.test_metrics import samples

ASK = {"model": CHATTER, "messages": [{"role": "user", "content": "Hello"}]}
CANCEL = {"type": "cancel"}


@asynccontextmanager
async def connected(
    running: Gateway, *, name: str = "127.0.0.1", **headers: str
) -> AsyncGenerator[ClientConnection]:
    """name: the gateway's, as the caller's requests give it."""
    url = f"ws://{name}:{running.port}/v1/chat/stream"
    address: dict[str, Any] = {"host": "127.0.0.1", "port": running.port}
    async with connect(url, additional_headers=headers, proxy=None, **address) as socket:
        yield socket


async def ask(socket: ClientConnection, message: object) -> None:
    await socket.send(message if isinstance(message, str) else json.dumps(message))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    heard: dict[str, Any] = json.loads(await soon(socket.recv()))
    return heard


async def answer(socket: ClientConnection) -> list[dict[str, Any]]:
    """All messages up to the one that is no chunk."""
    heard = [await hear(socket)]
    while heard[-1].get("object") == "chat.completion.chunk":
        heard.append(await hear(socket))
    return heard


async def test_an_answer_is_the_chunks_of_an_event_stream(running: Gateway) -> None:
    asked = ASK | {"stream_options": {"include_usage": True}}
    streamed = await running.http.post("/v1/chat/completions", json=asked | {"stream": True})
    async with connected(running) as socket:
        await ask(socket, asked)
        *chunks, last = await answer(socket)

    frames = "".join(f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n" for chunk in chunks)
    assert constant(f"{frames}data: [DONE]\n\n") == constant(streamed.text)
    assert last == {"type": "done"}


async def test_several_choices_come_side_by_side(running: Gateway) -> None:
    async with connected(running) as socket:
        await ask(socket, ASK | {"n": 2, "stream_options": {"include_usage": True}})
        *chunks, usage, done = await answer(socket)

    parts = [chunk["choices"][0] for chunk in chunks]
    assert {
        index: "".join(part["delta"].get("content", "") for part in parts if part["index"] == index)
        for index in (0, 1)
    } == {0: "Hello", 1: "Hello"}
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 11, {"type": "done"})


async def test_requests_are_answered_in_turn_and_counted() -> None:
    async with gateway() as running, connected(running) as socket:
        for _ in range(3):
            await ask(socket, ASK)
            assert (await answer(socket))[-1] == {"type": "done"}
        counted = await samples(running)

    assert counted[f"gen_ai_server_request_duration_seconds_count{{model={CHATTER},operation=chat}}"] == 3


async def test_a_cancelled_answer_ends_at_once_and_the_next_one_is_whole() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine) as running, connected(running) as socket:
        await ask(socket, ASK)
        await soon(engine.started.wait())
        await ask(socket, CANCEL)
        cancelled = await answer(socket)
        assert engine.ended.is_set()
        engine.writing.set()
        await ask(socket, ASK)

        assert cancelled[-1] == {"type": "cancelled"}
        assert (await answer(socket))[-1] == {"type": "done"}


async def test_a_cancel_without_an_answer_changes_nothing(running: Gateway) -> None:
    async with connected(running) as socket:
        await ask(socket, CANCEL)
        await ask(socket, ASK)

        assert (await answer(socket))[-1] == {"type": "done"}


async def test_a_second_request_waits_for_the_end_of_the_first() -> None:
    engine = FakeEngine()
    engine.reading.clear()
    async with gateway(engine) as running, connected(running) as socket:
        await ask(socket, ASK)
        await ask(socket, ASK)
        refused = (await answer(socket))[-1]
        engine.reading.set()

        assert refused["error"]["message"].startswith("An answer is being written.")
        assert (await answer(socket))[-1] == {"type": "done"}
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_json", None),
        ("[]", "invalid_type", None),
        ({"type": "shout"}, "invalid_value", "type"),
        (ASK | {"model": "nope"}, "model_not_found", "model"),
        (ASK | {"temperature": 9}, "invalid_value", "temperature"),
        (ASK | {"stream": False}, "unsupported_parameter", "stream"),
    ],
    ids=lambda value: json.dumps(value)[-20:],
)
async def test_a_wrong_message_is_refused_by_name_and_the_next_one_answered(
    running: Gateway, message: object, code: str, param: str | None
) -> None:
    async with connected(running) as socket:
        await ask(socket, message)
        refused = await hear(socket)
        await ask(socket, ASK)

        assert (refused["error"]["code"], refused["error"]["param"]) == (code, param)
        assert (await answer(socket))[-1] == {"type": "done"}


async def test_a_failure_in_the_middle_is_the_last_message_of_its_answer() -> None:
    engine = FakeEngine(error=WorkerCrashed("It ended."), pieces_before_error=1)
    async with gateway(engine) as running, connected(running) as socket:
        await ask(socket, ASK)

        assert (await answer(socket))[-1]["error"]["message"] == "It ended."


async def test_each_answer_leaves_one_line_in_the_log(
    running: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="openai_shim.access"):
        async with connected(running) as socket:
            for asked in (ASK, ASK | {"model": "nope"}):
                await ask(socket, asked)
                await answer(socket)

    lines = [record.message for record in caplog.records if record.name == "openai_shim.access"]
    assert [line.split()[1:4] for line in lines] == [
        ["WEBSOCKET", "/v1/chat/stream", "200"],
        ["WEBSOCKET", "/v1/chat/stream", "404"],
    ]


async def test_a_bug_shows_nothing_of_itself() -> None:
    engine = FakeEngine(error=RuntimeError("/home/ann/secret"))
    async with gateway(engine) as running, connected(running) as socket:
        await ask(socket, ASK)
        told = await hear(socket)

    assert told["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(told)


async def test_a_caller_who_leaves_frees_the_model() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine) as running:
        async with connected(running) as socket:
            await ask(socket, ASK)
            await soon(engine.started.wait())

        await soon(engine.ended.wait())


async def test_a_gateway_that_ends_finishes_the_answer_and_closes_the_socket() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine) as running, connected(running) as socket, connected(running) as idle:
        await ask(socket, ASK)
        await soon(engine.started.wait())

        running.context.closing.set()
        with pytest.raises(ConnectionClosedOK) as idle_closed:
            await hear(idle)
        engine.writing.set()

        assert (await answer(socket))[-1] == {"type": "done"}
        with pytest.raises(ConnectionClosedOK) as closed:
            await hear(socket)
    assert [each.value.rcvd and each.value.rcvd.code for each in (idle_closed, closed)] == [1001, 1001]


async def test_an_answer_can_be_cancelled_while_the_gateway_ends() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine) as running, connected(running) as socket:
        await ask(socket, ASK)
        await soon(engine.started.wait())

        running.context.closing.set()
        await ask(socket, CANCEL)

        assert (await answer(socket))[-1] == {"type": "cancelled"}
        with pytest.raises(ConnectionClosedOK):
            await hear(socket)


async def test_an_answer_that_does_not_end_in_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_shim.serve.server.DRAIN_SECONDS", 0.05)
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine) as running:
        socket = await connect(f"ws://127.0.0.1:{running.port}/v1/chat/stream", proxy=None)
        await ask(socket, ASK)
        await soon(engine.started.wait())

    with pytest.raises(ConnectionClosed):
        await answer(socket)
    assert engine.ended.is_set()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"name": "evil.example", "authorization": "Bearer k1"}, 421),
        ({"origin": "http://evil.example", "authorization": "Bearer k1"}, 403),
        ({"authorization": "Bearer k2"}, 401),
        ({}, 401),
    ],
    ids=str,
)
async def test_strangers_are_not_connected(headers: dict[str, str], status: int) -> None:
    async with gateway(accepted_keys=("k1",)) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with connected(running, **headers):
                pass
        async with connected(running, authorization="Bearer k1"):
            pass

    assert refused.value.response.status_code == status


async def test_plain_http_is_told_what_the_address_takes(running: Gateway) -> None:
    reply = await running.http.get("/v1/chat/stream")

    assert (reply.status_code, reply.json()["error"]["code"]) == (426, "upgrade_required")
