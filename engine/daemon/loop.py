"""The event loop of a process that serves."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
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


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Do `work` for the length of the block, whose end cancels what is left of it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


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
