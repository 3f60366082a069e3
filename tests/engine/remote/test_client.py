"""The engine seen through the gateway: its values, its errors, and what happens when it is lost."""

import asyncio
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.daemon import Endpoint, claim, ensure, stop
from engine.daemon.http import CONNECT_SECONDS
from engine.errors import BadInput, EngineError, GatewayUnreachable, ModelNotFound, Overloaded, WorkerCrashed
from engine.remote.client import GatewayClient, RemoteEmbeddings
from engine.settings import Home
from engine.types import (
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    EmbedRequest,
    Message,
    Sampling,
    Usage,
)
from tests.mcp_server.canned import command, dismiss, starts
from tests.mcp_server.canned_gateway import CannedEngine


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    yield (home := Home(tmp_path))
    await dismiss(home)


@pytest.fixture
async def client(home: Home) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(partial(ensure, home, command=command())) as client:
        yield client


@pytest.fixture(scope="module")
async def shared_client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayClient]:
    """For tests that leave their gateway as they found it."""
    home = Home(tmp_path_factory.mktemp("home"))
    async with GatewayClient(partial(ensure, home, command=command())) as client:
        yield client
    await dismiss(home)


@pytest.fixture
def late_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows takes 2 s to refuse a connection, longer than a client waits for one."""
    connect = BaseSelectorEventLoop.sock_connect

    async def late(self: Any, sock: socket.socket, address: Any) -> None:
        try:
            await connect(self, sock, address)
        except ConnectionRefusedError:
            await asyncio.sleep(2 * CONNECT_SECONDS)
            raise

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", late)


def asking(prompt: str) -> ChatRequest:
    return ChatRequest((Message("user", prompt),), sampling=Sampling(temperature=0))


@pytest.mark.parametrize("model_id", ["mein modell", "owner/name", "grüße", "100%", "a?b#c", "a//b"])
async def test_a_model_is_asked_for_by_its_id_whatever_is_in_it(
    shared_client: GatewayClient, model_id: str
) -> None:
    for asked in (shared_client.load, shared_client.unload):
        with pytest.raises(ModelNotFound) as refusal:
            await asked(model_id)
        assert repr(model_id) in str(refusal.value)


async def text(client: GatewayClient, request: ChatRequest) -> str:
    async with aclosing(client.chat(request)) as events:
        return "".join([event.text async for event in events if isinstance(event, ChatPiece)])


async def test_embeddings_come_back_as_plain_numbers_with_the_device_that_ran(
    shared_client: GatewayClient,
) -> None:
    assert await shared_client.embed(EmbedRequest(("a", "b"))) == RemoteEmbeddings(
        model="canned-embed",
        vectors=((1, 0, 0, 0), (1, 0, 0, 0)),
        total_tokens=6,
        devices=("npu",),
        npu_emulated=True,
    )


async def test_the_input_type_reaches_the_engine(shared_client: GatewayClient) -> None:
    reply = await shared_client.embed(EmbedRequest(("a",), input_type="query"))

    assert reply.vectors == ((0, 1, 0, 0),)


async def test_a_chat_comes_back_event_by_event(shared_client: GatewayClient) -> None:
    async with aclosing(shared_client.chat(asking("hello"))) as events:
        received = [event async for event in events]

    assert received == [
        ChatStarted("canned-chat", "cpu"),
        ChatPiece("user: hello. "),
        ChatFinished("stop", Usage(prompt_tokens=11, completion_tokens=7, cached_tokens=3)),
    ]


async def test_every_message_reaches_the_engine_with_its_role(shared_client: GatewayClient) -> None:
    messages = (
        Message("system", "be brief"),
        Message("user", "hello"),
        Message("assistant", "Hi"),
        Message("user", "?"),
    )

    assert (
        await text(shared_client, ChatRequest(messages))
        == "system: be brief. user: hello. assistant: Hi. user: ?. "
    )


async def test_health_is_the_engines_own(shared_client: GatewayClient) -> None:
    assert await shared_client.health() == CannedEngine().health()


async def test_closing_a_chat_ends_it_in_the_gateway(shared_client: GatewayClient) -> None:
    async with aclosing(shared_client.chat(asking("endless"))) as events:
        await anext(events)
        assert (await shared_client.health()).queue.chat == 1

    while (await shared_client.health()).queue.chat:
        pass


async def test_an_unknown_model_keeps_the_engines_message(shared_client: GatewayClient) -> None:
    with pytest.raises(ModelNotFound, match="npu-gateway pull nope"):
        await shared_client.embed(EmbedRequest(("a",), model="nope"))


async def test_a_full_queue_says_when_to_come_back(shared_client: GatewayClient) -> None:
    with pytest.raises(Overloaded, match="Too many chats") as refusal:
        await text(shared_client, asking("busy"))

    assert refusal.value.retry_after_seconds == 7


async def test_a_wrong_request_names_the_field(shared_client: GatewayClient) -> None:
    with pytest.raises(BadInput) as refusal:
        await shared_client.embed(EmbedRequest(("",)))

    assert refusal.value.field == "input"


async def test_an_answer_that_breaks_off_raises_the_reason_after_the_pieces(
    shared_client: GatewayClient,
) -> None:
    async with aclosing(shared_client.chat(asking("breaks off"))) as events:
        assert await anext(events) == ChatStarted("canned-chat", "cpu")
        assert await anext(events) == ChatPiece("so far ")
        with pytest.raises(WorkerCrashed, match="The chat worker ended"):
            await anext(events)


async def test_a_prompt_that_ends_every_gateway_is_sent_twice_then_reported(
    client: GatewayClient, home: Home
) -> None:
    with pytest.raises(GatewayUnreachable, match="ended in the middle"):
        await text(client, asking("crash"))

    assert len(starts(home)) == 2


async def test_the_next_request_after_a_kill_is_answered_by_a_new_gateway(client: GatewayClient) -> None:
    first = await client.endpoint()
    psutil.Process(first.pid).kill()

    reply = await client.embed(EmbedRequest(("a",)))

    assert reply.model == "canned-embed"
    assert (await client.endpoint()).instance != first.instance


async def test_a_dead_gateway_whose_port_refuses_late_is_replaced_too(
    client: GatewayClient, late_refusals: None
) -> None:
    first = await client.endpoint()
    process = psutil.Process(first.pid)
    process.kill()
    process.wait(timeout=10)

    await client.embed(EmbedRequest(("a",)))

    assert (await client.endpoint()).instance != first.instance


async def test_a_port_that_refuses_late_again_and_again_is_no_busy_gateway(
    home: Home, late_refusals: None
) -> None:
    with claim(home, "127.0.0.1", 0, auto_started=True) as claimed:
        gone = claimed.endpoint

    async def locate() -> Endpoint:
        return gone

    async with GatewayClient(locate) as client:
        with pytest.raises(GatewayUnreachable):
            await client.health()


async def test_a_successor_on_the_same_port_is_asked_with_its_own_token(
    client: GatewayClient, home: Home
) -> None:
    first = await client.endpoint()
    await stop(home)
    successor = await ensure(home, command=command(port=int(first.url.rpartition(":")[2])))

    health = await client.health()

    assert health.status == "ok"
    assert successor.url == first.url
    assert await client.endpoint() == successor


async def test_a_token_that_stays_wrong_is_reported(home: Home) -> None:
    async def with_a_wrong_token() -> Endpoint:
        return replace(await ensure(home, command=command()), token="wrong")

    async with GatewayClient(with_a_wrong_token) as client:
        with pytest.raises(EngineError, match="refused this client's token"):
            await client.health()


async def test_proxy_variables_do_not_get_in_the_way(
    client: GatewayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert (await client.health()).status == "ok"
