"""The MCP server object: identity, instructions, tools, and the connection to the gateway that they share."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.mcpserver import MCPServer

from engine import __version__
from engine.errors import GatewayUnreachable
from engine.remote.client import GatewayClient, Locate
from engine.settings import Home
from mcp_server.app import App
from mcp_server.files import VectorFiles
from mcp_server.resources import add_resources
from mcp_server.tools import add_tools

log = logging.getLogger(__name__)

INSTRUCTIONS = """\
Embeddings and a small chat model that run on this computer (on its NPU where there is one): private, free,
offline. One gateway serves all programs of this computer, so calls may wait for each other.
- embed: texts to vectors, for similarity and search.
- complete: a short answer from the local chat model, for private or simple text work.
- health: what is loaded and on which device; look here when a call fails or is slow.
The first call after a start may take some seconds while models load; an error says what to do next.
"""

CONSTANT: tuple[CacheableMethod, ...] = (
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
)
"""What never changes while a server runs, and is the same for everybody."""
CONSTANT_FOR_MS = 10 * 60 * 1000
"""How long clients need not ask again; a newer version may have taken over by then."""


def create_server(home: Home, locate: Locate) -> MCPServer[App]:
    """locate: finds the gateway or starts one; called in the background at start and after a loss."""
    files = VectorFiles(home.out)

    @asynccontextmanager
    async def lifespan(_: MCPServer[App]) -> AsyncIterator[App]:
        async with GatewayClient(locate) as gateway, anyio.create_task_group() as tasks:
            tasks.start_soon(_warm, gateway)
            yield App(gateway, files)
            tasks.cancel_scope.cancel()

    server = MCPServer(
        "npu-gateway",
        title="Local AI gateway",
        version=__version__,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        log_level="WARNING",
        cache_hints=dict.fromkeys(CONSTANT, CacheHint(ttl_ms=CONSTANT_FOR_MS, scope="public")),
    )
    add_tools(server)
    add_resources(server, locate, files)
    _tighten_schemas(server)
    return server


async def _warm(gateway: GatewayClient) -> None:
    """Have a gateway start loading its models while the client is still shaking hands."""
    try:
        await gateway.endpoint()
    except GatewayUnreachable as error:
        log.warning("%s", error)  # each call tries again and tells the model


def _tighten_schemas(server: MCPServer[App]) -> None:
    """Refuse unknown arguments, which the SDK ignores, and publish schemas that every client accepts.

    Reaches into mcp 2.3 (`_tool_manager`, `fn_metadata`) for want of a public way; tests pin the outcome.
    """
    for tool in server._tool_manager.list_tools():
        arguments = tool.fn_metadata.arg_model
        arguments.model_config["extra"] = "forbid"
        arguments.model_rebuild(force=True)
        tool.parameters["additionalProperties"] = False
        tool.parameters = portable(tool.parameters)
        if schema := tool.fn_metadata.output_schema:
            tool.fn_metadata.output_schema = portable(schema)


def portable(schema: dict[str, Any]) -> dict[str, Any]:
    """The same JSON Schema without $ref, $defs and anyOf-null, which some MCP clients refuse.

    Also without titles, which repeat the names and cost the reading model tokens.
    """
    definitions = schema.get("$defs", {})

    def flat(node: Any) -> Any:
        if isinstance(node, list):
            return [flat(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return flat(definitions[node["$ref"].removeprefix("#/$defs/")])
        if "anyOf" in node:
            present, _null = node["anyOf"]  # X | None is the only union in use
            rest = {key: value for key, value in node.items() if key != "anyOf"}
            return flat(_nullable(flat(present)) | rest)
        return {
            k: flat(v) for k, v in node.items() if k != "$defs" and not (k == "title" and isinstance(v, str))
        }

    result = flat(schema)
    assert isinstance(result, dict)
    return result


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    values = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | values
