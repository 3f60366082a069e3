"""The gateway's state as resources."""

import json
import sys
from functools import partial

import pytest
from mcp import Client, MCPError

from engine.client import Locate
from engine.daemon import ensure
from engine.settings import Home
from mcp_server.server import create_server


async def test_status_and_models_are_listed_as_json(locate: Locate):
    async with Client(create_server(locate)) as client:
        listed = (await client.list_resources()).resources

    assert [(str(resource.uri), resource.mime_type) for resource in listed] == [
        ("gateway://status", "application/json"),
        ("gateway://models", "application/json"),
    ]


async def test_status_says_what_the_health_tool_says(locate: Locate):
    async with Client(create_server(locate)) as client:
        read = await client.read_resource("gateway://status")
        health = await client.call_tool("health", {})

    assert json.loads(read.contents[0].text) == health.structured_content


async def test_models_lists_the_models(locate: Locate):
    async with Client(create_server(locate)) as client:
        read = await client.read_resource("gateway://models")

    assert [model["id"] for model in json.loads(read.contents[0].text)] == ["canned-embed", "canned-chat"]


async def test_without_a_gateway_a_read_says_why(home: Home):
    broken = (sys.executable, "-c", "raise SystemExit('no such device')")

    async with Client(create_server(partial(ensure, home, command=broken))) as client:
        with pytest.raises(MCPError, match="no such device"):
            await client.read_resource("gateway://status")
