"""Taking connections, and letting what runs finish when the gateway ends."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from sanic.application.state import ApplicationServerInfo
from sanic.http.constants import HTTP

from openai_shim.http.connection import CAPACITY, Connection
from openai_shim.http.context import App
from openai_shim.serve.descriptors import MAX_CONNECTIONS

logger = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
"""For TLS. Until then asyncio alone knows of a connection, and no limit counts it."""

DRAIN_SECONDS = 15.0
"""What running requests get to finish when the gateway ends; `npu-gateway stop` waits for twice that."""


@contextlib.asynccontextmanager
async def serving(
    app: App,
    listeners: Sequence[socket.socket],
    tls: ssl.SSLContext | None = None,
    *,
    capacity: int = MAX_CONNECTIONS,
) -> AsyncGenerator[None]:
    """Answer what arrives on the listeners for the length of the block, then let running requests finish.

    capacity: how many connections there can be at once.
    Until they have, new ones are told to come back later (by the guard), which says more than a closed port.
    """
    # As Sanic's own `run` does; without it, every reply has an empty alt-svc header.
    app.state.server_info.append(ApplicationServerInfo({"version": HTTP.VERSION_1}))
    # Connections may wait in the backlog already: routes must be complete before the first is accepted.
    app.config[CAPACITY] = capacity
    options = {"start_serving": False, "ssl_handshake_timeout": HANDSHAKE_SECONDS if tls else None}
    servers: list[Any] = [
        await app.create_server(sock=listener, ssl=tls, protocol=Connection, asyncio_server_kwargs=options)
        for listener in listeners
    ]
    first = servers[0]  # what it does to the app is done for all
    await first.startup()
    await first.before_start()
    for server in servers:
        await server.start_serving()
    await first.after_start()
    try:
        yield
    finally:
        app.ctx.closing.set()
        await _drain(servers, listeners)
        await first.before_stop()
        await first.after_stop()


async def _drain(servers: Sequence[Any], listeners: Sequence[socket.socket]) -> None:
    def connections() -> list[Any]:
        return [connection for server in servers for connection in server.connections]

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await _until(lambda: not any(connection.http for connection in connections()))
    for server in servers:
        server.close()  # what is still connected is idle, in the middle of a request, or out of time
    for listener in listeners:
        listener.close()  # on Windows, Sanic serves a duplicate of it
    unfinished = [each for each in connections() if not each.close_if_idle()]
    if unfinished:
        logger.warning("%d connections are cut off in a request or its answer", len(unfinished))
    for connection in unfinished:
        connection.abort()  # cancels its handler
    await _until(lambda: not connections())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - Sanic tells nobody when a connection becomes idle or ends
        await asyncio.sleep(0.02)
