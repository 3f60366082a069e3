"""The serving process's side: take the lock, take a port, publish the endpoint."""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import Timeout

from engine import __version__
from engine.daemon.endpoint import API, Endpoint, published, read, unpublish
from engine.daemon.lock import home_lock
from engine.errors import GatewayRunning, PortTaken
from engine.settings import Home


@dataclass(frozen=True)
class Claim:
    """The right to be this home's gateway. socket: already listening; pass it to the HTTP server."""

    home: Home
    socket: socket.socket
    endpoint: Endpoint

    def unpublish(self) -> None:
        """Let no new client find this gateway; for one that is about to leave but still finishes its work."""
        unpublish(self.home, self.endpoint)


@contextmanager
def claim(
    home: Home, host: str, port: int, *, auto_started: bool, certificate: str | None = None
) -> Iterator[Claim]:
    """Be the one gateway of `home` for the length of the block.

    auto_started: nobody asked for this port, so any free one will do when it is taken.
    certificate: PEM, if the socket will speak HTTPS.
    Raises GatewayRunning if another process is the gateway, PortTaken if the port is not free.
    """
    with _held(home), _listen(host, port, any_free=auto_started) as listener:
        endpoint = Endpoint(
            url=_url("https" if certificate else "http", host, listener),
            token=secrets.token_urlsafe(32),
            pid=os.getpid(),
            version=__version__,
            api=API,
            instance=secrets.token_hex(8),
            auto_started=auto_started,
            certificate=certificate,
        )
        # Listening comes first: a client that reads the file at once waits in the backlog, it is not refused.
        with published(home, endpoint):
            yield Claim(home, listener, endpoint)


@contextmanager
def _held(home: Home) -> Iterator[None]:
    """Clients that ask whether a gateway lives hold the lock for microseconds: that is waited out."""
    try:
        with home_lock(home, "gateway", wait_seconds=0.2):
            yield
    except Timeout as error:
        running = read(home)
        where = f"at {running.url} (process {running.pid})" if running else "and is just starting"
        raise GatewayRunning(
            f"A gateway already runs {where}. Use it, or end it with `npu-gateway stop`.",
            url=running.url if running else None,
        ) from error


def _listen(host: str, port: int, *, any_free: bool) -> socket.socket:
    try:
        return _bound(host, port)
    except OSError as error:
        if any_free:
            return _bound(host, 0)
        raise PortTaken(
            f"Port {port} on {host} cannot be used: {port_holder(port) or error.strerror}. "
            f"Choose another: npu-gateway serve --port {port + 1}"
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket. `socket.create_server` knows that SO_REUSEADDR means port theft on Windows."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def _url(scheme: str, host: str, listener: socket.socket) -> str:
    """Where clients on this machine reach the socket; a wildcard address is reached over loopback."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{shown}:{listener.getsockname()[1]}"


def port_holder(port: int) -> str | None:
    """Who listens on the port, in words, or None where the system will not tell (macOS without root)."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid}) listens there"
    return None
