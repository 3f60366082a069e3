"""A connection that nobody listens for is refused after two seconds: Windows sends SYN again after a RST."""

import asyncio
import socket
import time
from asyncio.selector_events import BaseSelectorEventLoop
from typing import Any

SECONDS = 2.0


def enforce() -> None:
    connect_in_loop = BaseSelectorEventLoop.sock_connect
    connect = socket.socket.connect

    async def late_in_loop(self: Any, sock: socket.socket, address: Any) -> None:
        try:
            await connect_in_loop(self, sock, address)
        except ConnectionRefusedError:
            await asyncio.sleep(SECONDS)
            raise

    def late(self: socket.socket, address: Any) -> None:
        try:
            connect(self, address)
        except ConnectionRefusedError as refusal:
            patience = self.gettimeout()
            if patience == 0:  # a loop's socket
                raise
            time.sleep(SECONDS if patience is None else min(patience, SECONDS))
            if patience is not None and patience < SECONDS:
                raise TimeoutError("timed out") from refusal
            raise

    BaseSelectorEventLoop.sock_connect = late_in_loop  # type: ignore[method-assign]
    socket.socket.connect = late  # type: ignore[assignment,method-assign]
