from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from engine.daemon import ensure
from engine.remote.client import GatewayClient, Locate
from engine.settings import Home
from tests.mcp_server.canned import command, dismiss


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """An empty home; a gateway that the test left running in it is stopped."""
    yield (home := Home(tmp_path))
    await dismiss(home)


@pytest.fixture(scope="session")
async def locate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Locate]:
    """One canned gateway for all tests that leave it as they found it."""
    home = Home(tmp_path_factory.mktemp("shared-home"))
    yield partial(ensure, home, command=command())
    await dismiss(home)


@pytest.fixture
async def gateway(locate: Locate) -> AsyncIterator[GatewayClient]:
    """A second client of the same gateway, to see what the tools did to it."""
    async with GatewayClient(locate) as client:
        yield client
