"""What every tool call works with."""

from dataclasses import dataclass

from engine.remote.client import GatewayClient
from mcp_server.files import VectorFiles


@dataclass(frozen=True)
class App:
    gateway: GatewayClient
    files: VectorFiles
