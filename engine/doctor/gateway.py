"""The running gateway, or the port for one."""

import asyncio
import socket
from collections.abc import Sequence

from packaging.version import Version

from engine import __version__
from engine.daemon import Endpoint, find
from engine.daemon.listen import another_port, listen, why_taken
from engine.daemon.lock import home_lock, is_held
from engine.doctor.finding import Finding
from engine.errors import EngineError
from engine.remote.client import GatewayClient
from engine.settings import Settings
from engine.types import Health


def check_gateway(endpoint: Endpoint | None, health: Health | str | None, *, locked: bool) -> Finding:
    """health: what the gateway says, or why it says nothing. locked: some process holds this home's lock."""
    name = "gateway"
    if endpoint is None:
        if locked:
            return Finding(
                name,
                "warn",
                "A process holds this home's lock but does not answer: it is starting, ending or stuck.",
                "Wait a moment; if that does not help: npu-gateway stop",
            )
        return Finding(name, "ok", "None is running. Start one with: npu-gateway serve")
    what = f"{endpoint.url}, version {endpoint.version}, process {endpoint.pid}"
    if Version(endpoint.version) != Version(__version__):
        return Finding(name, "warn", f"{what}; this program is {__version__}.", "Run: npu-gateway restart")
    if isinstance(health, Health) and health.status != "degraded":
        return Finding(name, "ok", f"{what}, {health.status}")
    return Finding(name, "warn", f"{what}: {_trouble(health)}", "See: npu-gateway status, npu-gateway logs")


def check_port(host: str, port: int, *, gateway: Endpoint | None, holder: str | None) -> Finding:
    """holder: why the port is not free, in words; None if it is."""
    name = "port"
    if holder is None:
        return Finding(name, "ok", f"{host}:{port} is free.")
    if gateway and gateway.url.endswith(f":{port}"):
        return Finding(name, "ok", f"{host}:{port} is the running gateway's.")
    return Finding(
        name,
        "warn",
        f"{host}:{port} cannot be used: {holder}. A gateway started by an MCP client takes another one.",
        f"End that program, or choose another: npu-gateway serve --port {another_port(port)}, or port in "
        "config.toml.",
    )


def check_localhost(addresses: Sequence[str], port: int) -> Finding:
    """addresses: what `localhost` resolves to, in the order in which clients try them."""
    name = "localhost"
    if not addresses:
        return Finding(
            name,
            "warn",
            "The name localhost does not resolve.",
            f"Use http://127.0.0.1:{port} in clients, or repair the hosts file.",
        )
    return Finding(name, "ok", f"localhost is {addresses[0]}.")


def gateway(settings: Settings) -> Sequence[Finding]:
    home, host, port = settings.home, settings.host, settings.port
    endpoint = asyncio.run(find(home))
    locked = home.run.exists() and is_held(home_lock(home, "gateway"))
    health = asyncio.run(_health(endpoint)) if endpoint else None
    return [
        check_gateway(endpoint, health, locked=locked),
        check_port(host, port, gateway=endpoint, holder=_holder(host, port)),
        check_localhost(_localhost(port), port),
    ]


async def _health(endpoint: Endpoint) -> Health | str:
    try:
        async with GatewayClient.of(endpoint) as client:
            return await client.health()
    except EngineError as error:
        return str(error)


def _trouble(health: Health | str | None) -> str:
    if not isinstance(health, Health):
        return str(health)
    troubles = [f"{model.id}: {model.detail}" for model in health.models if model.detail]
    return "; ".join(troubles) or str(health.npu.reason)


def _holder(host: str, port: int) -> str | None:
    try:
        for each in listen(host, port):
            each.close()
    except OSError as error:
        return why_taken(port, error)
    return None


def _localhost(port: int) -> list[str]:
    try:
        found = socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return []
    return [str(address[0]) for *_, address in found]
