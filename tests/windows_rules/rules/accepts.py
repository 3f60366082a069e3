"""The default event loop closes a listening socket when one accept fails, as the Proactor does (gh-93821)."""

import asyncio
import socket
from typing import Any


class ProactorLike(asyncio.SelectorEventLoop):
    def _accept_connection(self, protocol_factory: Any, sock: socket.socket, *rest: Any) -> None:
        try:
            super()._accept_connection(protocol_factory, sock, *rest)  # type: ignore[misc]
        except OSError as error:
            self.call_exception_handler(
                {"message": "Accept failed on a socket", "exception": error, "socket": sock}
            )
            self._stop_serving(sock)  # type: ignore[attr-defined]


def enforce() -> None:
    type(asyncio.get_event_loop_policy())._loop_factory = ProactorLike  # type: ignore[attr-defined]
