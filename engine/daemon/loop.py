"""The event loop of a process that serves."""

import asyncio
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def run_server(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on a loop that goes on listening when a connection cannot be accepted.

    Windows' own, the Proactor, closes the listening socket for good then (CPython issue 93821), and a client
    that gives up at the wrong moment is enough. The selector loop can hold 512 sockets there; this machine's
    clients open fewer.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner, _signals_wake(runner.get_loop()):
        return runner.run(main)


@contextmanager
def _signals_wake(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Windows' select sleeps through signals, so that Ctrl-C would wait for the next connection."""
    receiving, sending = socket.socketpair()
    with receiving, sending:
        receiving.setblocking(False)
        sending.setblocking(False)
        loop.add_reader(receiving, receiving.recv, 4096)
        before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(receiving)
