"""A gateway on a real port around a fake engine, and clients for it."""

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import httpx2
import openai
import pytest
from sanic import Sanic

from engine.daemon import Endpoint
from engine.daemon.endpoint import read
from engine.settings import Home, Settings
from openai_shim.app import create_app
from openai_shim.http.context import App, GatewayContext
from openai_shim.serve.descriptors import MAX_CONNECTIONS
from openai_shim.serve.server import serving
from tests.openai_shim.fakes import FakeEngine, settings

Sanic.test_mode = True  # several apps of one name in one process, one after the other


@dataclass(frozen=True)
class Gateway:
    """One that runs. http: a plain client; openai: the official one, which never tries again by itself."""

    engine: FakeEngine
    context: GatewayContext
    app: App
    port: int
    http: httpx2.AsyncClient
    openai: openai.AsyncOpenAI


@asynccontextmanager
async def gateway(
    engine: FakeEngine | None = None,
    *,
    configured: Settings | None = None,
    accepted_keys: tuple[str, ...] = (),
    endpoint: Endpoint | None = None,
    capacity: int = MAX_CONNECTIONS,
) -> AsyncGenerator[Gateway]:
    engine = engine or FakeEngine()
    context = GatewayContext(engine.as_engine, configured or settings(), accepted_keys, endpoint)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = create_app(context)
    async with (
        serving(app, [listener], capacity=capacity),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http,
        openai.AsyncOpenAI(
            api_key="none needed", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0, timeout=10
        ) as client,
    ):
        yield Gateway(engine, context, app, port, http, client)


@pytest.fixture(scope="package")
async def shared_gateway() -> AsyncGenerator[Gateway]:
    async with gateway() as started:
        yield started


@pytest.fixture
def running(shared_gateway: Gateway) -> Gateway:
    """An open gateway with default settings that has not been asked anything yet."""
    shared_gateway.engine.requests.clear()
    return shared_gateway


@pytest.fixture
async def http(gateway_home: Home) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a gateway with the real models."""
    endpoint = read(gateway_home)
    assert endpoint is not None
    async with httpx2.AsyncClient(base_url=endpoint.url, trust_env=False, timeout=60) as client:
        yield client
