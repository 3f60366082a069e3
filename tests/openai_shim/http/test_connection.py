"""What a connection may hold, and what arrives on it that no client library would send."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from openai_shim.http import context
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, EMBEDDER

HOST = b"host: localhost\r\n"
ASK = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v1/embeddings HTTP/1.1\r\n" + HOST

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(running: Gateway) -> AsyncGenerator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchanged(running: Gateway, sent: bytes) -> bytes:
    """All that comes back until the gateway closes the connection, as it must here."""
    async with connected(running) as (reader, writer):
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), 10)


async def status_line(streams: Streams) -> bytes:
    reader, writer = streams
    writer.write(ASK)
    return await asyncio.wait_for(reader.readline(), 10)


@pytest.mark.parametrize(
    "target",
    [b"/\x1b[31m", b"/v1/models\x1b", b"/a?\x1b", b"\x1b", b"/\x7f\xff", b"/v1/models\xff", b"/\x00", b"//["],
)
async def test_an_address_that_is_none_is_refused_in_one_line(
    running: Gateway, target: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    reply = await exchanged(
        running, b"GET " + target + b" HTTP/1.1\r\nconnection: close\r\n" + HOST + b"\r\n"
    )

    assert reply.startswith(b"HTTP/1.1 4")
    (line,) = caplog.messages
    assert "\x1b" not in line


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_stream_has_chunks_only_for_those_who_know_them(running: Gateway, version: bytes) -> None:
    body = b'{"model":"%b","messages":[{"role":"user","content":"Hi"}],"stream":true}' % CHATTER.encode()
    head = b"POST /v1/chat/completions HTTP/%b\r\n%bconnection: close\r\ncontent-length: %d\r\n\r\n"

    reply = await exchanged(running, head % (version, HOST, len(body)) + body)

    headers, _, streamed = reply.partition(b"\r\n\r\n")
    is_old = version == b"1.0"
    assert (b"transfer-encoding" not in headers.lower()) == is_old
    assert streamed.startswith(b"data: {") == is_old
    assert streamed.endswith(b"data: [DONE]\n\n") == is_old


async def test_idle_connections_lock_nobody_out() -> None:
    """The one that has been idle longest makes room for each that is too many."""
    async with gateway(capacity=20) as running, AsyncExitStack() as opened:
        idle = [await opened.enter_async_context(connected(running)) for _ in range(100)]

        assert await status_line(idle[-1]) == b"HTTP/1.1 200 OK\r\n"
        assert await asyncio.wait_for(idle[0][0].read(), 10) == b""
        async with connected(running) as another:
            assert await status_line(another) == b"HTTP/1.1 200 OK\r\n"


async def test_half_a_request_keeps_no_place(caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(capacity=5) as running, AsyncExitStack() as opened:
        for _ in range(20):
            _, writer = await opened.enter_async_context(connected(running))
            writer.write(b"GET /healthz HT")
            await writer.drain()

        async with connected(running) as another:
            assert await status_line(another) == b"HTTP/1.1 200 OK\r\n"
    assert [line for line in caplog.records if line.levelno > logging.WARNING] == []


async def test_when_every_connection_works_the_next_is_told_to_come_back() -> None:
    async with gateway(capacity=3) as running, AsyncExitStack() as opened:
        for _ in range(3):
            reader, writer = await opened.enter_async_context(connected(running))
            writer.write(POST + b"expect: 100-continue\r\ncontent-length: 9\r\n\r\n")
            assert await asyncio.wait_for(reader.readline(), 10) == b"HTTP/1.1 100 Continue\r\n"

        async with connected(running) as (reader, _):
            refused = await asyncio.wait_for(reader.read(), 10)

    assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n")
    assert b'"code":"unavailable"' in refused


async def trickled(running: Gateway, start: bytes) -> bytes:
    """The first that comes back while a byte follows another without end."""
    async with connected(running) as (reader, writer):
        writer.write(start)
        reply = asyncio.create_task(reader.readline())
        async with asyncio.timeout(10):
            while not reply.done():
                writer.write(b"a")
                await asyncio.wait([reply], timeout=0.05)
        return await reply


async def test_headers_that_never_end_are_given_up() -> None:
    async with gateway() as running:
        running.app.config.REQUEST_TIMEOUT = 0.5  # type: ignore[assignment]  # Sanic says int
        reply = await trickled(running, b"GET /healthz HTTP/1.1\r\nx: ")

    assert reply.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "headers", [b"content-length: 100000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\nfffff\r\n"]
)
async def test_a_body_that_never_ends_is_given_up(
    running: Gateway, headers: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "BODY_SECONDS", 0.5)

    reply = await trickled(running, POST + headers)

    assert reply.startswith(b"HTTP/1.1 408 ")
    assert running.engine.requests == []


@pytest.mark.parametrize(
    "path", ["/health", "/healthz", "/readyz", "/metrics", "/v1/models", "/openapi.json"]
)
async def test_head_is_get_without_the_body(running: Gateway, path: str) -> None:
    asked, headed = await running.http.get(path), await running.http.head(path)

    assert (headed.status_code, headed.content) == (asked.status_code, b"")
    assert headed.headers["content-type"] == asked.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "model_id"),
    [
        (f"/v1/models/{EMBEDDER}", EMBEDDER),
        ("/v1/models/tiny%2Dembedder", EMBEDDER),
        ("/v1/models/mein%20modell", "mein modell"),
        ("/v1/models/owner%2Fname", "owner/name"),
        ("/v1/models/owner/name", "owner/name"),
        ("/v1/models/gr%C3%BC%C3%9Fe", "grüße"),
        ("/v1/models/100%25", "100%"),
        ("/v1//models/a%20b", "a b"),
    ],
)
async def test_an_encoded_id_is_the_id(running: Gateway, path: str, model_id: str) -> None:
    reply = await exchanged(
        running, f"GET {path} HTTP/1.1\r\nconnection: close\r\n".encode() + HOST + b"\r\n"
    )

    assert f'"id":"{model_id}"'.encode() in reply or f"No model '{model_id}'".encode() in reply


@pytest.mark.parametrize("path", ["//v1/models", "/v1//models", "///v1///models", "/v1/models/"])
async def test_a_slash_too_many_changes_nothing(running: Gateway, path: str) -> None:
    reply = await exchanged(
        running, f"GET {path} HTTP/1.1\r\nconnection: close\r\n".encode() + HOST + b"\r\n"
    )

    assert reply.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["//internal/identity", "/internal//identity", "/%69nternal/identity"])
async def test_no_way_of_writing_an_address_passes_the_guard(running: Gateway, path: str) -> None:
    reply = await exchanged(
        running, f"GET {path} HTTP/1.1\r\nconnection: close\r\n".encode() + HOST + b"\r\n"
    )

    assert reply.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 404 "))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/models", "This is at /v1/models: the base URL of OpenAI clients ends in /v1."),
        ("/chat/completions", "This is at /v1/chat/completions: the base URL of OpenAI clients ends in /v1."),
        ("/v1/v1/embeddings", "The base URL has /v1 twice: this is at /v1/embeddings."),
        (
            "/v1/images/generations",
            "This gateway does not have this part of the OpenAI API; /openapi.json says what it has.",
        ),
        (
            "/api/tags",
            "There is nothing at this address. The OpenAI routes start with /v1, as in /v1/models.",
        ),
    ],
)
async def test_a_404_says_what_is_wrong_with_the_address(running: Gateway, path: str, said: str) -> None:
    reply = await running.http.post(path, json={})

    assert (reply.status_code, reply.json()["error"]) == (
        404,
        {"message": said, "type": "invalid_request_error", "param": None, "code": "not_found"},
    )
