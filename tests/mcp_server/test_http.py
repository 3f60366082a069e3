"""MCP over HTTP: the same tools, behind the gateway's tokens."""

import asyncio
import codecs
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from engine.daemon import Endpoint, ensure
from engine.daemon.listen import another_port
from engine.settings import Home
from tests.addresses import needs_ipv6
from tests.engine.cli.commands import RUN_MAIN, environment, npu_gateway
from tests.mcp_server.canned import command, dismiss
from tests.mcp_server.wire import CANNED_MCP, SECONDS, address_of, initialize, until_chats
from tests.windows_rules.aborted import FIRST_ACCEPT_FAILS

API_KEY = "a-key-of-the-configuration"
OTHER_KEY = "another-key"
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


@dataclass(frozen=True)
class Served:
    url: str
    gateway: Endpoint

    async def post(self, **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False) as http:
            return await http.post(self.url, json=LIST, headers=headers)


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    home = Home(tmp_path_factory.mktemp("http"))
    home.config_file.write_text(f'api_key = "{API_KEY}"\napi_keys = ["{OTHER_KEY}"]\n')
    gateway = await ensure(home, command=command())
    async with address_of((*CANNED_MCP, "0"), home) as url:
        yield Served(url, gateway)
    await dismiss(home)


@asynccontextmanager
async def client(served: Served, token: str, mode: Any = "auto") -> AsyncIterator[Client]:
    bearer = {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(trust_env=False, headers=bearer) as http,
        Client(streamable_http_client(served.url, http_client=http), mode=mode) as connected,
    ):
        yield connected


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_gets_results_in_both_eras(served: Served, mode: Any) -> None:
    async with client(served, served.gateway.token, mode) as connected:
        names = [tool.name for tool in (await connected.list_tools()).tools]
        completed = await connected.call_tool("complete", {"prompt": "hello"})

    assert names == ["embed", "complete", "health"]
    assert completed.structured_content["text"] == "user: hello. "


@needs_ipv6
async def test_both_loopback_addresses_are_served(served: Served) -> None:
    over_ipv6 = replace(served, url=served.url.replace("127.0.0.1", "[::1]"))
    async with client(over_ipv6, API_KEY) as connected:
        health = await connected.call_tool("health", {})

    assert health.structured_content["status"] == "ok"


@pytest.mark.parametrize("key", [API_KEY, OTHER_KEY])
async def test_the_keys_of_the_configuration_open_it_too(served: Served, key: str) -> None:
    async with client(served, key) as connected:
        health = await connected.call_tool("health", {})

    assert health.structured_content["status"] == "ok"


async def test_a_cancelled_call_ends_the_generation_in_the_gateway(served: Served) -> None:
    async with client(served, API_KEY) as connected:
        call = asyncio.create_task(connected.call_tool("complete", {"prompt": "endless"}))
        await until_chats(served.gateway, 1)
        call.cancel()

        await until_chats(served.gateway, 0)


@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer wrong", f"Basic {API_KEY}", f"Bearer {API_KEY}x"]
)
async def test_without_a_token_nobody_gets_in(served: Served, value: str | None) -> None:
    reply = await served.post(**({} if value is None else {"authorization": value}))

    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert "npu-gateway token" in reply.text


async def test_white_space_at_the_end_of_a_header_is_no_part_of_it(served: Served) -> None:
    """RFC 9110, section 5.5; not every parser takes it off, and clients of httpx refuse to send it."""
    address = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {API_KEY} \r\nConnection: close\r\n\r\n".encode()
    )
    status = await asyncio.wait_for(reader.readline(), SECONDS)
    writer.close()

    assert status.split()[1] == b"406"  # let in, and then told what to accept


@pytest.mark.parametrize(
    ("header", "value", "status"), [("host", "evil.example", 421), ("origin", "https://evil.example", 403)]
)
async def test_web_pages_are_kept_out_even_with_the_token(
    served: Served, header: str, value: str, status: int
) -> None:
    accept = {"accept": "application/json, text/event-stream"}
    reply = await served.post(**{"authorization": f"Bearer {API_KEY}", header: value}, **accept)

    assert reply.status_code == status


async def test_its_log_stays_within_bounds_while_it_runs(home: Home) -> None:
    """Two files of 2,000 bytes here; a refused request writes a line of 100."""
    gateway = await ensure(home, command=command())
    small = f"import mcp_server.log; mcp_server.log.LOG_BYTES = 2_000; {RUN_MAIN}"

    async with address_of((sys.executable, "-c", small, "mcp", "--http", "0"), home) as announced:
        served = Served(announced.removeprefix("MCP over HTTP: "), gateway)
        for _ in range(100):
            assert (await served.post()).status_code == 401
        logs = sorted(home.log.glob("mcp-*"))

    assert [file.suffix for file in logs] == [".log", ".1"]
    assert all(0 < file.stat().st_size <= 2_000 for file in logs)


def ping(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "ping"} | members).encode()


@asynccontextmanager
async def session(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that has shaken hands, which sends any body as if it were JSON."""
    headers = {
        "authorization": f"Bearer {API_KEY}",
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
    }
    async with httpx2.AsyncClient(trust_env=False, headers=headers) as http:
        introduced = await http.post(served.url, json=initialize("2025-11-25"))
        http.headers["mcp-session-id"] = introduced.headers["mcp-session-id"]
        yield http


@pytest.mark.parametrize(
    ("body", "request_id", "code"),
    [
        pytest.param(ping(id=1, params={"text": "\ud83d"}), 1, -32700, id="half a surrogate pair"),
        pytest.param(b"nope", None, -32700, id="words"),
        pytest.param(b"", None, -32700, id="nothing"),
        pytest.param(ping(id=2.5), 2.5, -32600, id="a broken number as id"),
        pytest.param(ping(id=3, method=None), 3, -32600, id="no method"),
        pytest.param(b"[" + ping(id=4) + b"]", 4, -32600, id="a batch"),
    ],
)
async def test_what_is_no_request_is_answered_with_an_error(
    served: Served, body: bytes, request_id: Any, code: int
) -> None:
    async with session(served) as http:
        reply = await http.post(served.url, content=body)

    assert reply.status_code == 400
    assert (reply.json()["id"], reply.json()["error"]["code"]) == (request_id, code)
    assert "http" not in reply.json()["error"]["message"]


@pytest.mark.parametrize("body", [codecs.BOM_UTF8 + ping(id=1), ping(id=1.0)], ids=["mark", "point"])
async def test_what_can_be_understood_is_served(served: Served, body: bytes) -> None:
    async with session(served) as http:
        reply = await http.post(served.url, content=body)

    assert json.loads(reply.text.partition("data: ")[2]) == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_a_body_that_is_too_long_is_refused(served: Served) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 2**20

    async with session(served) as http:
        reply = await http.post(served.url, content=parts())

    assert reply.status_code == 413


async def test_a_connection_that_cannot_be_accepted_does_not_make_it_deaf(home: Home) -> None:
    await ensure(home, command=command())
    first_fails = (sys.executable, "-c", FIRST_ACCEPT_FAILS + RUN_MAIN, "mcp", "--http", "0")
    async with address_of(first_fails, home) as printed, httpx2.AsyncClient(trust_env=False) as http:
        reply = await http.post(printed.rpartition(" ")[2], json=LIST)

    assert reply.status_code == 401


def test_a_port_that_is_taken_is_refused_with_another(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = npu_gateway("mcp", "--http", str(port), env=environment(home))

    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used" in done.stderr
    assert f"npu-gateway mcp --http {another_port(port)}" in done.stderr
