"""The gateway's state and the files of vectors as resources."""

import json
import sys
from functools import partial

import pytest
from mcp import Client, MCPError
from mcp.types import ResourceLink, TextResourceContents

from engine.daemon import ensure
from engine.remote.client import Locate
from engine.settings import Home
from mcp_server.server import create_server
from tests.mcp_server.canned import NO_HOME


async def read(client: Client, uri: str) -> TextResourceContents:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content


async def test_status_and_models_are_listed_as_json(locate: Locate) -> None:
    async with Client(create_server(NO_HOME, locate)) as client:
        listed = (await client.list_resources()).resources

    assert [(str(resource.uri), resource.mime_type) for resource in listed] == [
        ("gateway://status", "application/json"),
        ("gateway://models", "application/json"),
    ]


async def test_status_says_what_the_health_tool_says(locate: Locate) -> None:
    async with Client(create_server(NO_HOME, locate)) as client:
        status = await read(client, "gateway://status")
        health = await client.call_tool("health", {})

    assert json.loads(status.text) == health.structured_content


async def test_models_lists_the_models(locate: Locate) -> None:
    async with Client(create_server(NO_HOME, locate)) as client:
        models = await read(client, "gateway://models")

    assert [model["id"] for model in json.loads(models.text)] == ["canned-embed", "canned-chat"]


async def test_without_a_gateway_a_read_says_why(home: Home) -> None:
    broken = (sys.executable, "-c", "raise SystemExit('no such device')")

    async with Client(create_server(home, partial(ensure, home, command=broken))) as client:
        with pytest.raises(MCPError, match="no such device"):
            await client.read_resource("gateway://status")


async def test_the_file_that_embed_wrote_is_read_by_its_link(home: Home, locate: Locate) -> None:
    async with Client(create_server(home, locate)) as client:
        embedded = await client.call_tool("embed", {"texts": ["a", "é\nx"], "output": "file"})
        link = embedded.content[-1]
        assert isinstance(link, ResourceLink)
        content = await read(client, link.uri)

    assert content.mime_type == link.mime_type == "application/jsonl"
    assert len(content.text.encode()) == link.size
    assert [json.loads(line) for line in content.text.splitlines()] == [
        {"text": "a", "vector": [1.0, 0.0, 0.0, 0.0]},
        {"text": "é\nx", "vector": pytest.approx([0.6, 0.8, 0.0, 0.0])},
    ]


@pytest.mark.parametrize(
    "name",
    ["0" * 32, "secret", "..%2Fsecret", "%2E%2E%2Fsecret", "%2E%2E%5Csecret", "%2Fetc%2Fpasswd", "a%00b"],
)
async def test_nothing_but_such_files_can_be_read(home: Home, locate: Locate, name: str) -> None:
    home.out.mkdir()
    for folder in (home.root, home.out):
        (folder / "secret.jsonl").write_text("secret")
        (folder / "secret").write_text("secret")

    async with Client(create_server(home, locate)) as client:
        with pytest.raises(MCPError, match=r"no such file of vectors|Unknown resource"):
            await client.read_resource(f"gateway://vectors/{name}")
