"""What a person can attach to a conversation: the gateway's state, as JSON."""

from collections.abc import Iterator
from contextlib import contextmanager

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError

from engine.client import GatewayClient, Locate
from engine.errors import EngineError
from engine.types import Health, ModelStatus


def add_resources(server: MCPServer[GatewayClient], locate: Locate) -> None:
    """A connection per read: the SDK gives fixed resources no context, and people read them rarely."""

    @server.resource(
        "gateway://status",
        title="Gateway status",
        description="What the gateway of this computer can do now; the same as the tool health.",
        mime_type="application/json",
    )
    async def status() -> Health:
        with _resource_errors():
            async with GatewayClient(locate) as gateway:
                return await gateway.health()

    @server.resource(
        "gateway://models",
        title="Models of the gateway",
        description="The models of this computer's gateway: kind, state, device, context length.",
        mime_type="application/json",
    )
    async def models() -> list[ModelStatus]:
        return list((await status()).models)


@contextmanager
def _resource_errors() -> Iterator[None]:
    """The engine's errors as ResourceError, whose text the SDK passes on."""
    try:
        yield
    except EngineError as error:
        raise ResourceError(str(error)) from error
