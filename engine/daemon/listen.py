"""Listening on this machine's addresses, and who else does."""

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence

from engine.errors import PortTaken
from engine.settings import LOOPBACK_HOSTS

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
ATTEMPTS = 10
_RESERVED = 10013
"""WSAEACCES: Hyper-V and others keep whole ranges of ports."""


def listen(host: str, port: int) -> tuple[socket.socket, ...]:
    """Sockets that listen on one port; port 0: a free one. Raises OSError.

    A loopback host means both loopback addresses: `localhost` is ::1 first on many systems, and Windows takes
    2 s to say that nobody listens there.
    """
    addresses = _addresses(host)
    if port:
        _refuse_taken(addresses, port)
        return _bound(addresses, port)
    for _ in range(ATTEMPTS):  # what is free at one address may be taken at the other
        with contextlib.suppress(OSError):
            return _bound(addresses, 0)
    return _bound(addresses, 0)


def taken(host: str, port: int, error: OSError, command: str) -> PortTaken:
    """What to raise when `listen` fails. command: what the port is an argument of."""
    return PortTaken(
        f"Port {port} on {host} cannot be used: {why_taken(port, error)}. "
        f"Choose another: {command} {another_port(port)}"
    )


def why_taken(port: int, error: OSError) -> str:
    if getattr(error, "winerror", None) == _RESERVED:
        return "Windows keeps it (netsh interface ipv4 show excludedportrange tcp)"
    return port_holder(port) or error.strerror or str(error)


def another_port(port: int) -> int:
    """Far away: ports are kept, and taken by one program, in ranges."""
    return port + 10_000 if port < 40_000 else port - 10_000


def port_holder(port: int) -> str | None:
    """Who listens on the port, in words, or None where the system will not tell (macOS without root)."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for _, process in _listeners(port):
            if process:
                return f"{psutil.Process(process).name()} (process {process}) listens there"
    return None


def _addresses(host: str) -> tuple[str, ...]:
    if host not in LOOPBACK_HOSTS:
        return (host,)
    return ("127.0.0.1", "::1") if _has_address("::1") else ("127.0.0.1",)


def _has_address(address: str) -> bool:
    try:
        _socket(address, 0).close()
    except OSError:
        return False
    return True


def _refuse_taken(addresses: Sequence[str], port: int) -> None:
    """Windows lets two programs listen on one port, one of them on all addresses, as if each were alone."""
    if any(address in (*addresses, *WILDCARDS) for address, _ in _listeners(port)):
        raise OSError(errno.EADDRINUSE, "another program listens there")


def _listeners(port: int) -> Iterator[tuple[str, int | None]]:
    """Address and process id; the system may keep the id, or all of it, to itself."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                yield connection.laddr.ip, connection.pid


def _bound(addresses: Sequence[str], port: int) -> tuple[socket.socket, ...]:
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for address in addresses:
            sockets.append(opened.enter_context(_socket(address, port)))
            port = sockets[0].getsockname()[1]
        opened.pop_all()
    return tuple(sockets)


def _socket(address: str, port: int) -> socket.socket:
    """`socket.create_server` knows that SO_REUSEADDR means port theft on Windows."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=128)
