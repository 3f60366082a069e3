"""What callers see when the process of the chat model dies, in a gateway with the real models."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import httpx2
import psutil
import pytest

from engine.settings import Home
from tests.openai_shim.processes import ENDLESS, Served, serving, wait_until_up

STREAMS = 4


@pytest.fixture
async def crashed(models_home: Home, tmp_path: Path) -> AsyncGenerator["Aftermath"]:
    with serving(models_home, tmp_path / "home") as served:
        await asyncio.to_thread(wait_until_up, served)
        async with httpx2.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as http:
            yield await kill_while_streaming(served, http)


class Aftermath:
    """What the streams ended with, what embeddings got meanwhile, and the gateway as it is now."""

    def __init__(self, http: httpx2.AsyncClient, ends: list[list[str]], embedded: list[int]) -> None:
        self.http = http
        self.ends = ends
        self.embedded = embedded


async def kill_while_streaming(served: Served, http: httpx2.AsyncClient) -> Aftermath:
    all_write = asyncio.Barrier(STREAMS + 1)
    embedded: list[int] = []
    async with asyncio.timeout(120):
        embedding = asyncio.create_task(embed_for_ever(http, embedded))
        streams = [asyncio.create_task(lines_of(http, all_write)) for _ in range(STREAMS)]
        await all_write.wait()
        chat_worker(served).kill()
        ends = await asyncio.gather(*streams)
        before = len(embedded)
        while len(embedded) < before + 3:
            await asyncio.sleep(0.01)
        embedding.cancel()
        await asyncio.gather(embedding, return_exceptions=True)
    return Aftermath(http, ends, embedded)


async def lines_of(http: httpx2.AsyncClient, all_write: asyncio.Barrier) -> list[str]:
    """The data lines of an endless answer, to its end; `all_write` is passed at the first piece of text."""
    lines: list[str] = []
    async with http.stream("POST", "/v1/chat/completions", json=ENDLESS | {"stream": True}) as reply:
        assert reply.status_code == 200
        async with aclosing(cast(AsyncGenerator[str], reply.aiter_lines())) as received:
            async for line in received:
                if not line:
                    continue
                lines.append(line)
                if len(lines) == 2:  # the first one has the role
                    await all_write.wait()
    return lines


async def embed_for_ever(http: httpx2.AsyncClient, statuses: list[int]) -> None:
    while True:
        text = f"text number {len(statuses)}"
        reply = await http.post("/v1/embeddings", json={"model": "bge-small-en-v1.5", "input": text})
        statuses.append(reply.status_code)


def chat_worker(served: Served) -> psutil.Process:
    (worker,) = [process for process in served.workers() if "engine.chat.chat_worker" in process.cmdline()]
    return worker


async def test_streams_end_with_an_error_the_next_chat_works_and_embeddings_never_fail(
    crashed: Aftermath,
) -> None:
    asked = ENDLESS | {"max_tokens": 4}
    answer = await crashed.http.post("/v1/chat/completions", json=asked)

    assert [error_of(lines[-1])["code"] for lines in crashed.ends] == ["worker_crashed"] * STREAMS
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert set(crashed.embedded) == {200}


def error_of(line: str) -> dict[str, object]:
    error: dict[str, object] = json.loads(line.removeprefix("data: "))["error"]
    return error
