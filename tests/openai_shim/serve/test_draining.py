"""How a gateway with the real models ends while it is used."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK

from engine.settings import Home
from tests.openai_shim.processes import Served, serving, wait_until_up

TOKENS = 60
ASK = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Count to ten thousand."}],
    "max_tokens": TOKENS,
    "logit_bias": {"0": -100, "2": -100},  # the tokens that end an answer
    "stream_options": {"include_usage": True},
}


@pytest.fixture
async def served(models_home: Home, tmp_path: Path) -> AsyncGenerator[Served]:
    with serving(models_home, tmp_path / "home") as started:
        await asyncio.to_thread(wait_until_up, started)
        yield started


async def test_what_runs_is_finished_and_what_comes_is_told_to_come_back(served: Served) -> None:
    url, token = served.url, served.endpoint.token
    async with asyncio.timeout(60), httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
        socket_url = url.replace("http:", "ws:") + "/v1/chat/stream"
        async with (
            connect(socket_url, proxy=None) as socket,
            http.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as stream,
        ):
            await socket.send(json.dumps(ASK))
            heard = [json.loads(await socket.recv())]

            shutdown = await http.post("/internal/shutdown", headers={"authorization": f"Bearer {token}"})
            async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as newcomer:
                refused = await newcomer.get("/v1/models")

            while heard[-1].get("object") == "chat.completion.chunk":
                heard.append(json.loads(await socket.recv()))
            with pytest.raises(ConnectionClosedOK) as closed:
                await socket.recv()
            streamed = (await stream.aread()).decode()

    assert shutdown.status_code == 202
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    *_, usage, done = heard
    assert (usage["usage"]["completion_tokens"], done) == (TOKENS, {"type": "done"})
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    *_, usage_event, done_event, _ = streamed.split("\n\n")
    assert json.loads(usage_event.removeprefix("data: "))["usage"]["completion_tokens"] == TOKENS
    assert done_event == "data: [DONE]"
    assert served.process.wait(timeout=30) == 0
