"""What can be read by its address: the gateway's state, and the files that `embed` wrote."""

from collections.abc import Iterator
from contextlib import contextmanager

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError

from engine.errors import EngineError
from engine.remote.client import GatewayClient, Locate
from engine.types import Health, ModelStatus
from mcp_server.app import App
from mcp_server.files import MIME_TYPE, URI, VectorFiles


def add_resources(server: MCPServer[App], locate: Locate, files: VectorFiles) -> None:
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

    @server.resource(
        URI,
        title="File of vectors",
        description="What embed wrote with output='file': one JSON object per line, with text and vector.",
        mime_type=MIME_TYPE,
    )
    def vectors(name: str) -> str:
        with _resource_errors():
            return files.read(name)


@contextmanager
def _resource_errors() -> Iterator[None]:
    """The engine's errors as ResourceError, whose text the SDK passes on."""
    try:
        yield
    except EngineError as error:
        raise ResourceError(str(error)) from error
