"""Calls of a tool through the SDK, and what their results say."""

from pathlib import Path
from typing import Any

from mcp import Client

from engine.remote.client import Locate
from engine.settings import Home
from mcp_server.server import create_server
from tests.mcp_server.canned import NO_HOME

GOLDEN = Path(__file__).with_name("golden") / "tools.json"


async def called(locate: Locate, tool: str, *, home: Home = NO_HOME, **arguments: Any) -> Any:
    """The result of one call through the SDK's client. home: where the server may write."""
    async with Client(create_server(home, locate), raise_exceptions=True) as client:
        return await client.call_tool(tool, arguments)


def text_of(result: Any) -> str:
    return "\n".join(block.text for block in result.content)
