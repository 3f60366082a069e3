"""What the conformance suite wants beside the server's own tools: all kinds of content, under fixed names."""

import base64
import json
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.types import (
    AudioContent,
    Completion,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)
from pydantic import Field

PIXEL_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SILENCE_WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="

SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object"}},
    "properties": {"address": {"$ref": "#/$defs/address"}, "phone": {}, "email": {}},
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"required": ["phone"]},
    "then": {"required": ["address"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

IMAGE = ImageContent(type="image", data=PIXEL_PNG, mime_type="image/png")
AUDIO = AudioContent(type="audio", data=SILENCE_WAV, mime_type="audio/wav")


def add_fixtures(server: MCPServer[Any]) -> None:
    _add_content_tools(server)
    _add_tools_that_act(server)
    _add_resources(server)
    _add_prompts(server)

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK's has no types
    async def complete(*_: object) -> Completion:
        return Completion(values=["testValue1"])


def _add_content_tools(server: MCPServer[Any]) -> None:
    contents: dict[str, list[ContentBlock]] = {
        "test_simple_text": [_text("This is a simple text response for testing.")],
        "test_image_content": [IMAGE],
        "test_audio_content": [AUDIO],
        "test_embedded_resource": [
            _embedded("test://embedded-resource", "This is an embedded resource content.")
        ],
        "test_multiple_content_types": [
            _text("Multiple content types test:"),
            IMAGE,
            _embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
        ],
    }
    for name, content in contents.items():
        _add_content_tool(server, name, content)


def _add_content_tool(server: MCPServer[Any], name: str, content: list[ContentBlock]) -> None:
    @server.tool(name=name, description=f"Returns {name}.", structured_output=False)
    async def tool() -> list[ContentBlock]:
        return content


def _add_tools_that_act(server: MCPServer[Any]) -> None:
    @server.tool()
    async def test_error_handling() -> str:
        """Always fails."""
        raise ToolError("This tool intentionally returns an error for testing")

    @server.tool()
    async def test_tool_with_progress(ctx: Context[Any]) -> str:
        """Reports progress three times."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
        return "done"

    @server.tool()
    async def test_x_mcp_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "",
    ) -> str:
        """Takes an argument that the client repeats as an HTTP header."""
        return region

    @server.tool()
    async def json_schema_2020_12_tool() -> str:
        """Has a schema of more words than types give."""
        return ""

    # The SDK has no public way to publish a schema as it is.
    server._tool_manager._tools["json_schema_2020_12_tool"].parameters = SCHEMA_2020_12

    @server.tool()
    async def test_trigger_tool_change(ctx: Context[Any]) -> str:
        """Changes the list of tools and tells the subscribers."""
        server.add_tool(_nothing, name="test_passing_tool")
        server.remove_tool("test_passing_tool")
        await ctx.notify_tools_changed()
        return "changed"

    @server.tool()
    async def test_trigger_prompt_change(ctx: Context[Any]) -> str:
        """Changes the list of prompts and tells the subscribers."""
        server.add_prompt(Prompt.from_function(_nothing, name="test_passing_prompt"))
        server.remove_prompt("test_passing_prompt")
        await ctx.notify_prompts_changed()
        return "changed"


async def _nothing() -> str:
    """Does nothing."""
    return ""


def _add_resources(server: MCPServer[Any]) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    async def text() -> str:
        """A text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    async def binary() -> bytes:
        """An image."""
        return base64.b64decode(PIXEL_PNG)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    async def template(id: str) -> str:
        """Whatever is asked for."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def _add_prompts(server: MCPServer[Any]) -> None:
    @server.prompt()
    async def test_simple_prompt() -> str:
        """No arguments."""
        return "This is a simple prompt for testing."

    @server.prompt()
    async def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """Two arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    async def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        """A resource and a text."""
        resource = _embedded(resourceUri, "Embedded resource content for testing.")
        return [UserMessage(resource), UserMessage("Please process the embedded resource above.")]

    @server.prompt()
    async def test_prompt_with_image() -> list[UserMessage]:
        """An image and a text."""
        return [UserMessage(IMAGE), UserMessage("Please analyze the image above.")]


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(
        type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    )
