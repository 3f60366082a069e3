"""The whole path with real models: official client, stdio, `npu-gateway mcp`, gateway, workers."""

import json
import math
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from engine.daemon import ensure, find, stop
from engine.settings import Home


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


async def test_each_tool_gives_real_results(gateway_home: Home):
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


async def test_complete_answers_in_the_form_of_a_json_schema(gateway_home: Home):
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


async def test_a_session_starts_the_gateway_and_survives_its_death(own_home: Home):
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
