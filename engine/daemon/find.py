"""The client's side: ask whether a gateway is there, and ask it to leave."""

import asyncio
import json
from http import HTTPStatus

import httpx2

from engine.daemon.endpoint import Endpoint, read
from engine.daemon.http import bearer, gateway_tls, loopback_http
from engine.daemon.lock import home_lock, is_held
from engine.errors import GatewayUnreachable
from engine.settings import Home

PROBE_SECONDS = 2.0
STOP_SECONDS = 30.0
"""Running generations may finish first; the gateway itself gives up on them sooner than this."""


async def find(home: Home) -> Endpoint | None:
    """The gateway of `home` if it answers now. A busy one answers; one that is just starting may not.

    The lock is looked at first: to connect where nobody listens any more takes seconds on Windows.
    """
    endpoint = read(home)
    if endpoint is None or not is_held(home_lock(home, "gateway")):
        return None
    return endpoint if await answers(endpoint) else None


def silent(home: Home) -> Endpoint | None:
    """The gateway that holds the lock, by what it has published; ask when it does not answer."""
    return read(home) if is_held(home_lock(home, "gateway")) else None


async def answers(endpoint: Endpoint) -> bool:
    """Whether this very gateway (not a successor, not another program on its old port) is there."""
    try:
        async with loopback_http(PROBE_SECONDS, gateway_tls(endpoint)) as http:
            reply = await http.get(f"{endpoint.url}/internal/identity", headers=bearer(endpoint))
            return reply.status_code == HTTPStatus.OK and reply.json()["instance"] == endpoint.instance
    except (httpx2.TransportError, json.JSONDecodeError, KeyError, TypeError):
        return False


async def stop(home: Home, deadline_seconds: float = STOP_SECONDS) -> bool:
    """End the gateway of `home` and wait until it is gone; False if none ran.

    Raises GatewayUnreachable if one holds the lock and neither answers nor leaves.
    """
    lock = home_lock(home, "gateway")
    if not is_held(lock):
        return False
    asked: Endpoint | None = None
    try:
        async with asyncio.timeout(deadline_seconds):
            while is_held(lock):
                endpoint = read(home)
                if endpoint and endpoint != asked and await retire(endpoint):
                    asked = endpoint  # if a client starts a successor in this moment, that is ended too
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        endpoint = read(home) or asked
        who = f"process {endpoint.pid}" if endpoint else "a process that published no address"
        raise GatewayUnreachable(
            f"The gateway ({who}) did not end within {deadline_seconds:.0f} s. End it yourself."
        ) from error
    return True


async def retire(endpoint: Endpoint) -> bool:
    """Ask a gateway to take no new work, finish what it has and exit; whether it heard."""
    try:
        async with loopback_http(PROBE_SECONDS, gateway_tls(endpoint)) as http:
            reply = await http.post(f"{endpoint.url}/internal/shutdown", headers=bearer(endpoint))
            return reply.status_code == HTTPStatus.ACCEPTED
    except httpx2.TransportError:
        return False
