"""The serving process's side: take the lock, take a port, publish the endpoint."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from filelock import Timeout

from engine import __version__
from engine.daemon.endpoint import API, Endpoint, published, read, unpublish
from engine.daemon.listen import WILDCARDS, listen, taken
from engine.daemon.lock import home_lock
from engine.errors import GatewayRunning
from engine.settings import LOOPBACK_HOSTS, Home


@dataclass(frozen=True)
class Claim:
    """The right to be this home's gateway. sockets: already listening; pass them to the HTTP server."""

    home: Home
    sockets: tuple[socket.socket, ...]
    endpoint: Endpoint

    def unpublish(self) -> None:
        """Let no new client find this gateway; for one that is about to leave but still finishes its work."""
        unpublish(self.home, self.endpoint)


@contextmanager
def claim(
    home: Home,
    host: str,
    port: int,
    *,
    auto_started: bool,
    certificate: str | None = None,
    flags: tuple[str, ...] = (),
) -> Iterator[Claim]:
    """Be the one gateway of `home` for the length of the block.

    auto_started: nobody asked for this port, so any free one will do when it is taken.
    certificate: PEM, if the socket will speak HTTPS. flags: as in Endpoint.
    Raises GatewayRunning if another process is the gateway, PortTaken if the port is not free.
    """
    with _held(home), ExitStack() as opened:
        sockets = _listen(host, port, any_free=auto_started)
        for each in sockets:
            opened.enter_context(each)
        endpoint = Endpoint(
            url=_url("https" if certificate else "http", host, sockets[0]),
            token=secrets.token_urlsafe(32),
            pid=os.getpid(),
            version=__version__,
            api=API,
            instance=secrets.token_hex(8),
            auto_started=auto_started,
            certificate=certificate,
            flags=flags,
        )
        # Listening comes first: a client that reads the file at once waits in the backlog, it is not refused.
        with published(home, endpoint):
            yield Claim(home, sockets, endpoint)


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


def _listen(host: str, port: int, *, any_free: bool) -> tuple[socket.socket, ...]:
    try:
        return listen(host, port)
    except OSError as error:
        if any_free:
            return listen(host, 0)
        raise taken(host, port, error, "npu-gateway serve --port") from error


def _url(scheme: str, host: str, listener: socket.socket) -> str:
    """Where clients on this machine reach the socket; a wildcard address is reached over loopback."""
    loopback = "127.0.0.1" if host in (*LOOPBACK_HOSTS, "0.0.0.0") else "::1"  # noqa: S104
    name = loopback if host in (*LOOPBACK_HOSTS, *WILDCARDS) else host
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{shown}:{listener.getsockname()[1]}"
