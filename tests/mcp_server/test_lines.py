"""Every line that asks for something is answered, by the real process, however it is written."""

import codecs
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.daemon import find
from engine.settings import Home
from tests.mcp_server.canned import dismiss
from tests.mcp_server.wire import Wire, initialize, until_chats, wired

PARSE_ERROR, INVALID_REQUEST = -32700, -32600
DEEP = b"[" * 100_000 + b"]" * 100_000


def line(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "ping"} | members).encode()


def call(request_id: Any, tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


@pytest.fixture(scope="module")
async def module_home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    yield (home := Home(tmp_path_factory.mktemp("lines")))
    await dismiss(home)


@pytest.fixture(scope="module")
async def shared(module_home: Home) -> AsyncIterator[Wire]:
    """One server for all lines: what one of them breaks, the next one shows."""
    async with wired(module_home) as wire:
        await wire.send(initialize("2025-11-25"))
        await wire.receive()
        yield wire


async def spoken(wire: Wire, version: str) -> None:
    """Shake hands in this version of MCP."""
    await wire.send(initialize(version))
    assert (await wire.receive())["result"]["protocolVersion"] == version
    await wire.send({"method": "notifications/initialized"})


@pytest.mark.parametrize(
    ("sent", "request_id", "code"),
    [
        pytest.param(line(id=1, params={"text": "\ud83d"}), 1, PARSE_ERROR, id="half a surrogate pair"),
        pytest.param(line(id="\ud83d"), None, PARSE_ERROR, id="half a surrogate pair as the id"),
        pytest.param(line(id=2, method="\xff").replace(b"\\u00ff", b"\xff"), 2, PARSE_ERROR, id="no UTF-8"),
        pytest.param(line(id=3)[:-1], None, PARSE_ERROR, id="broken off"),
        pytest.param(line(id=4) + line(id=5), None, PARSE_ERROR, id="two in one line"),
        pytest.param(b"not json", None, PARSE_ERROR, id="words"),
        pytest.param(codecs.BOM_UTF16 + "{}".encode("utf-16-le"), None, PARSE_ERROR, id="UTF-16"),
        pytest.param(b"1" * 5000, None, PARSE_ERROR, id="a number of 5,000 digits"),
        pytest.param(DEEP, None, PARSE_ERROR, id="deep"),
        pytest.param(line(id=6, method=None), 6, INVALID_REQUEST, id="no method"),
        pytest.param(b'{"jsonrpc":"2.0","id":7}', 7, INVALID_REQUEST, id="method left out"),
        pytest.param(line(id="8", method=8), "8", INVALID_REQUEST, id="a number as method"),
        pytest.param(line(id=9, jsonrpc="1.0"), 9, INVALID_REQUEST, id="another version of JSON-RPC"),
        pytest.param(b'{"id":10,"method":"ping"}', 10, INVALID_REQUEST, id="no version of JSON-RPC"),
        pytest.param(line(id=11, params=["a"]), 11, INVALID_REQUEST, id="a list of parameters"),
        pytest.param(line(id=1.5), 1.5, INVALID_REQUEST, id="a broken number as id"),
        pytest.param(line(id=None), None, INVALID_REQUEST, id="null as id"),
        pytest.param(line(id=True), None, INVALID_REQUEST, id="true as id"),
        pytest.param(line(id={"a": 1}), None, INVALID_REQUEST, id="an object as id"),
        pytest.param(b'{"jsonrpc":"2.0","method":"ping","id":1e999}', None, INVALID_REQUEST, id="infinity"),
        pytest.param(b"{}", None, INVALID_REQUEST, id="nothing"),
        pytest.param(b"12", None, INVALID_REQUEST, id="a number"),
        pytest.param(b"[]", None, INVALID_REQUEST, id="an empty batch"),
        pytest.param(b"[" + line(id=12) + b"]", 12, INVALID_REQUEST, id="a batch where there are none"),
    ],
)
async def test_what_is_no_request_is_answered_with_an_error(
    shared: Wire, sent: bytes, request_id: Any, code: int
) -> None:
    await shared.send_line(sent)
    answer = await shared.receive()

    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert (answer["id"], answer["error"]["code"]) == (request_id, code)
    assert answer["error"]["message"].endswith(".")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(codecs.BOM_UTF8 + line(id=1), id="byte order mark"),
        pytest.param(b" " + line(id=1) + b" \r", id="white space"),
        pytest.param(line(id=1.0), id="a whole number with a point"),
        pytest.param(b"\n\r\n" + line(id=1), id="empty lines before it"),
        pytest.param(b'{"jsonrpc":"2.0","id":9,"result":3}\n' + line(id=1), id="a broken answer before it"),
    ],
)
async def test_what_can_be_understood_is_served(shared: Wire, sent: bytes) -> None:
    await shared.send_line(sent)

    assert await shared.receive() == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_a_batch_is_answered_by_a_batch_in_the_version_that_has_them(home: Home) -> None:
    async with wired(home) as wire:
        await spoken(wire, "2025-03-26")
        await wire.send_batch(
            call("a", "embed", texts=["x"]),
            {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
            {"jsonrpc": "2.0", "id": "b", "method": "no/such"},
            {"jsonrpc": "2.0", "id": 3},
            "nothing",
            {"jsonrpc": "2.0", "id": "c", "method": "ping"},
        )
        answers = await wire.receive_batch()

    by_id = {answer["id"]: answer for answer in answers}
    assert len(answers) == len(by_id) == 5
    assert by_id["a"]["result"]["structuredContent"]["count"] == 1
    assert by_id["b"]["error"]["code"] == -32601
    assert by_id[3]["error"]["code"] == by_id[None]["error"]["code"] == INVALID_REQUEST
    assert by_id["c"] == {"jsonrpc": "2.0", "id": "c", "result": {}}


async def test_a_batch_of_notifications_gets_no_answer(home: Home) -> None:
    async with wired(home) as wire:
        await spoken(wire, "2025-03-26")
        await wire.send_batch({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})
        await wire.send({"id": 1, "method": "ping"})

        assert await wire.receive() == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_a_batch_does_not_wait_for_a_call_that_was_cancelled(home: Home) -> None:
    async with wired(home) as wire:
        await spoken(wire, "2025-03-26")
        await wire.send_batch(call(1, "complete", prompt="endless"), call(2, "health"))
        await wire.send(call(3, "health"))
        assert (await wire.receive())["id"] == 3
        endpoint = await find(home)
        assert endpoint
        await until_chats(endpoint, 1)
        await wire.send({"method": "notifications/cancelled", "params": {"requestId": 1}})

        assert [answer["id"] for answer in await wire.receive_batch()] == [2]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
async def test_in_other_versions_each_request_of_a_batch_is_refused(home: Home, version: str) -> None:
    async with wired(home) as wire:
        await spoken(wire, version)
        await wire.send_batch(call("a", "health"), call("b", "health"))
        answers = [await wire.receive(), await wire.receive()]

    assert {answer["id"]: answer["error"]["code"] for answer in answers} == {
        "a": INVALID_REQUEST,
        "b": INVALID_REQUEST,
    }
