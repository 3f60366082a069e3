"""Why servers here do not run on Windows' default event loop, and why a rule imitates it."""

import asyncio
import socket
from asyncio.proactor_events import BaseProactorEventLoop
from typing import Any

from engine.daemon import claim
from engine.settings import Home


class AbortedConnection:
    """A proactor whose first accept fails, as when a client resets its connection in the backlog."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.accepts = 0

    def accept(self, listener: socket.socket) -> asyncio.Future[Any]:
        self.accepts += 1
        accepted = self._loop.create_future()
        if self.accepts == 1:
            accepted.set_exception(OSError(22, "The specified network name is no longer available"))
        return accepted

    def select(self, timeout: float | None) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class OwnProactorLoop(BaseProactorEventLoop):
    """CPython's, without what only Windows has."""

    def __init__(self) -> None:
        asyncio.BaseEventLoop.__init__(self)
        self._proactor: Any = AbortedConnection(self)
        self._selector = self._proactor
        self._self_reading_future = None
        self._accept_futures: dict[int, Any] = {}
        self._ssock = self._csock = None

    def _stop_accept_futures(self) -> None:
        pass

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def test_cpythons_proactor_closes_the_listener_of_the_gateway_when_one_accept_fails(tmp_path: Any) -> None:
    """When this fails, CPython has mended it (issue 93821), and servers may use the default loop again."""
    loop = OwnProactorLoop()
    proactor = loop._proactor
    seen: list[str] = []
    loop.set_exception_handler(lambda _, context: seen.append(context["message"]))

    async def some_turns() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    with claim(Home(tmp_path), "127.0.0.1", 0, auto_started=True) as claimed:
        served = claimed.sockets[0].dup()  # what Sanic serves on Windows
        loop._start_serving(asyncio.Protocol, served)  # type: ignore[attr-defined]
        loop.run_until_complete(some_turns())
        loop.close()

    assert seen == ["Accept failed on a socket"]
    assert (served.fileno(), proactor.accepts) == (-1, 1)
