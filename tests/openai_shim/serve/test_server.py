"""Which addresses are answered, by whichever socket a request came."""

from pathlib import Path

import httpx2
import pytest

from engine.daemon import claim
from engine.settings import Home
from openai_shim.app import create_app
from openai_shim.http.context import GatewayContext
from openai_shim.serve.server import serving
from tests.addresses import needs_ipv6
from tests.openai_shim.fakes import FakeEngine, settings


@needs_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_each_name_of_this_machine_is_answered(tmp_path: Path, host: str) -> None:
    with claim(Home(tmp_path), "127.0.0.1", 0, auto_started=False) as claimed:
        context = GatewayContext(FakeEngine().as_engine, settings(), (), claimed.endpoint)
        url = claimed.endpoint.url.replace("127.0.0.1", host)
        async with (
            serving(create_app(context), claimed.sockets),
            httpx2.AsyncClient(trust_env=False) as http,
        ):
            reply = await http.post(f"{url}/v1/embeddings", json={"input": "a"})

    assert reply.status_code == 200


@needs_ipv6
async def test_after_the_end_no_address_is_listened_on(tmp_path: Path) -> None:
    with claim(Home(tmp_path), "127.0.0.1", 0, auto_started=False) as claimed:
        context = GatewayContext(FakeEngine().as_engine, settings(), (), claimed.endpoint)
        async with serving(create_app(context), claimed.sockets):
            pass

        assert [listener.fileno() for listener in claimed.sockets] == [-1, -1]
