"""The MCP server object: identity, instructions, tools, and the connection to the gateway that they share."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import ValidationError

from engine import __version__
from engine.errors import EngineError
from engine.remote.client import GatewayClient, Locate
from engine.settings import Home
from mcp_server.app import App
from mcp_server.arguments import complaint, without_nulls
from mcp_server.files import VectorFiles
from mcp_server.resources import add_resources
from mcp_server.stdio import stdio
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


class GatewayServer(MCPServer[App]):
    """The SDK's server with our own words for wrong arguments, and an answer to every line.

    Reaches into mcp 2.3 (`_tool_manager`, `_lowlevel_server`, `fn_metadata`) for want of a public way; tests
    pin the outcome.
    """

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[App, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            names = ", ".join(tool.name for tool in self._tool_manager.list_tools())
            raise ToolError(f"There is no tool {name}. The tools are: {names}.")
        try:
            return await super().call_tool(name, without_nulls(arguments), context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            known = tool.fn_metadata.arg_model.model_fields
            raise ToolError(f"Error executing tool {name}: {complaint(error.__cause__, known)}") from error

    async def run_stdio_async(self) -> None:
        server = self._lowlevel_server
        async with stdio() as (requests, answers):
            await server.run(requests, answers, server.create_initialization_options())

    def tighten_schemas(self) -> None:
        """Refuse unknown arguments, which the SDK ignores, and publish schemas that every client accepts.

        Not where a tool has no arguments: models that feel they must write one mean nothing by it.
        """
        for tool in self._tool_manager.list_tools():
            arguments = tool.fn_metadata.arg_model
            if arguments.model_fields:
                arguments.model_config["extra"] = "forbid"
                arguments.model_rebuild(force=True)
            tool.parameters["additionalProperties"] = False
            tool.parameters = portable(tool.parameters)
            if schema := tool.fn_metadata.output_schema:
                tool.fn_metadata.output_schema = portable(schema)


def create_server(home: Home, locate: Locate) -> MCPServer[App]:
    """locate: finds the gateway or starts one; called in the background at start and after a loss."""
    files = VectorFiles(home.out)

    @asynccontextmanager
    async def lifespan(_: MCPServer[App]) -> AsyncIterator[App]:
        async with GatewayClient(locate) as gateway, anyio.create_task_group() as tasks:
            tasks.start_soon(_warm, gateway)
            yield App(gateway, files)
            tasks.cancel_scope.cancel()

    server = GatewayServer(
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
    server.tighten_schemas()
    return server


async def _warm(gateway: GatewayClient) -> None:
    """Have a gateway start loading its models while the client is still shaking hands."""
    try:
        await gateway.endpoint()
    except EngineError as error:
        log.warning("%s", error)  # each call tries again and tells the model
    except Exception:  # a bug in the search must not keep the client from being answered
        log.exception("The gateway was not found, for a reason that nobody foresaw.")


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
