"""The whole path with real models: official client, stdio, `npu-gateway mcp`, gateway, workers."""

import asyncio
import json
import math
import os
import shutil
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from engine.daemon import ensure, find, stop
from engine.remote.client import GatewayClient
from engine.settings import Home
from tests.mcp_server.wire import until

NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 2000}
LONG_ANSWER = {"prompt": "Count.", "max_tokens": 2000, "json_schema": json.dumps(NUMBERS)}


def server(home: Home) -> StdioServerParameters:
    variables = {"NPU_GATEWAY_HOME": str(home.root)}
    return StdioServerParameters(command=sys.executable, args=["-m", "engine.cli", "mcp"], env=variables)


@pytest.fixture
async def own_home(models_home: Home, tmp_path: Path) -> AsyncIterator[Home]:
    """A home with the models and no gateway yet; one that the test starts is stopped."""
    home = Home(tmp_path)
    shutil.copytree(models_home.models, home.models, copy_function=os.link)
    home.config_file.write_text("port = 0\n")
    yield home
    await stop(home)


async def test_each_tool_gives_real_results(gateway_home: Home) -> None:
    async with Client(server(gateway_home)) as client:
        embedded = await client.call_tool(
            "embed", {"texts": ["A cat sat.", "A dog ran."], "output": "vectors"}
        )
        completed = await client.call_tool("complete", {"prompt": "What is the capital of France?"})
        health = await client.call_tool("health", {})

    embeddings, answer = embedded.structured_content, completed.structured_content
    assert (embeddings["model"], embeddings["dimensions"]) == ("bge-small-en-v1.5", 384)
    assert [math.hypot(*vector) for vector in embeddings["vectors"]] == pytest.approx([1, 1], abs=1e-4)
    assert "Paris" in answer["text"]
    assert (answer["model"], answer["finish_reason"]) == ("smollm2-135m-instruct", "stop")
    assert {model["id"]: model["state"] for model in health.structured_content["models"]} == {
        "bge-small-en-v1.5": "ready",
        "smollm2-135m-instruct": "ready",
    }


async def test_complete_answers_in_the_form_of_a_json_schema(gateway_home: Home) -> None:
    capital = {"type": "string", "maxLength": 40}
    schema = {"type": "object", "properties": {"capital": capital}, "required": ["capital"]}
    question = 'Answer {"capital": ...} as JSON. What is the capital of France?'

    async with Client(server(gateway_home)) as client:
        completed = await client.call_tool(
            "complete",
            {"prompt": question, "json_schema": json.dumps(schema | {"additionalProperties": False})},
        )

    assert completed.structured_content["finish_reason"] == "stop"
    assert json.loads(completed.structured_content["text"]).keys() == {"capital"}


async def test_a_session_starts_the_gateway_and_survives_its_death(own_home: Home) -> None:
    async with Client(server(own_home)) as client:
        before = await client.call_tool("embed", {"texts": ["A cat sat."]})
        first = await find(own_home)
        assert first
        workers = psutil.Process(first.pid).children(recursive=True)
        psutil.Process(first.pid).kill()
        after = await client.call_tool("embed", {"texts": ["A cat sat."]})

    assert before.structured_content == after.structured_content
    assert (await ensure(own_home)).instance != first.instance
    assert psutil.wait_procs(workers, timeout=10)[1] == []


async def test_a_cancelled_call_stops_the_model(gateway_home: Home) -> None:
    """Seen in the gateway's counters and in the processor time of the model's process.

    One that wrote on would write 2,000 tokens; stopping at the next one leaves room for a slow machine.
    """
    worker = await chat_worker(gateway_home)

    async with (
        Client(server(gateway_home)) as client,
        GatewayClient(partial(ensure, gateway_home)) as gateway,
    ):

        async def tokens() -> int:
            return sum(model.tokens for model in (await gateway.health()).models if model.kind == "chat")

        async def so_many(wanted: int) -> bool:
            return await tokens() >= wanted

        async def all_is_quiet() -> bool:
            return not (await gateway.health()).queue.chat and await rests(worker)

        tokens_before, seconds_before = await tokens(), seconds_of(worker)
        call = asyncio.create_task(client.call_tool("complete", LONG_ANSWER))
        await until(partial(so_many, tokens_before + 50))
        call.cancel()
        tokens_then, seconds_then = await tokens(), seconds_of(worker)
        await until(all_is_quiet)
        tokens_after, seconds_after = await tokens(), seconds_of(worker)

    written = tokens_then - tokens_before
    rest = 2000 - written
    assert tokens_after - tokens_then < rest / 20
    assert seconds_after - seconds_then < (seconds_then - seconds_before) / written * rest / 20


async def chat_worker(home: Home) -> psutil.Process:
    gateway = await find(home)
    assert gateway
    (worker,) = (
        child
        for child in psutil.Process(gateway.pid).children(recursive=True)
        if "engine.chat.chat_worker" in child.cmdline()
    )
    return worker


def seconds_of(process: psutil.Process) -> float:
    """Processor time, user and system."""
    return sum(process.cpu_times()[:2])


async def rests(process: psutil.Process) -> bool:
    before = seconds_of(process)
    await asyncio.sleep(0.1)
    return seconds_of(process) == before
