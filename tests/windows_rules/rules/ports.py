"""A socket may take an address although somebody listens on all addresses of its port, and then gets the
connections; a range of ports is nobody's: Hyper-V and others keep it.
"""

import errno
import socket
from typing import Any

from tests.windows_rules.rules.winerror import ACCESS, ADDRESS_IN_USE, refused

EXCLUDED = range(50_000, 50_100)
WILDCARDS = ("0.0.0.0", "::")


def enforce() -> None:
    bind = socket.socket.bind

    def bound(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM:
            host, port = address[:2]
            if port in EXCLUDED:
                raise refused(PermissionError, errno.EACCES, ACCESS, address)
            if port and host not in WILDCARDS and _listens(host, port):
                raise refused(OSError, errno.EADDRINUSE, ADDRESS_IN_USE, address)
            if hasattr(socket, "SO_REUSEPORT") and (port or host in WILDCARDS):
                self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bind(self, address)

    socket.socket.bind = bound  # type: ignore[assignment,method-assign]


def _listens(host: str, port: int) -> bool:
    import psutil

    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr[:2] == (host, port)
        for connection in psutil.net_connections(kind="tcp")
    )
