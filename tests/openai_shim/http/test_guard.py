"""Who may ask."""

from typing import Any

import pytest

from engine.daemon import Endpoint
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import EMBEDDER, FakeEngine, settings

EMBED = {"model": EMBEDDER, "input": "a"}
ENDPOINT = Endpoint(
    url="http://127.0.0.1:1", token="t0ken", pid=1, version="0.1.0", api=1, instance="i1", auto_started=True
)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("localhost:9", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("laptop.lan:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("192.168.1.2:8000", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
async def test_only_own_names_are_answered_to(host: str, status: int) -> None:
    """A web page can point its own name at 127.0.0.1, and its requests then pass for local ones."""
    engine = FakeEngine()
    async with gateway(engine, configured=settings(allowed_hosts=("laptop.lan",))) as running:
        reply = await running.http.post("/v1/embeddings", json=EMBED, headers={"host": host})

    assert reply.status_code == status
    assert bool(engine.requests) == (status == 200)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("http://localhost:3000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
async def test_pages_of_other_origins_are_refused(running: Gateway, origin: str, status: int) -> None:
    reply = await running.http.post(
        "/v1/embeddings", json=EMBED, headers={"host": "localhost:8000", "origin": origin}
    )

    assert reply.status_code == status
    assert bool(running.engine.requests) == (status == 200)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer k1", 200),
        ("bearer k2", 200),
        ("Bearer t0ken", 200),
        (None, 401),
        ("Bearer k3", 401),
        ("Bearer", 401),
        ("Basic k1", 401),
        ("k1", 401),
        ("Bearer kéy".encode(), 401),
        (b"Bearer \xff", 401),
    ],
    ids=str,
)
async def test_with_keys_set_nobody_without_one_is_answered(
    authorization: str | bytes | None, status: int
) -> None:
    engine = FakeEngine()
    headers: Any = {} if authorization is None else {"authorization": authorization}
    async with gateway(engine, accepted_keys=("k1", "k2"), endpoint=ENDPOINT) as running:
        reply = await running.http.post("/v1/embeddings", json=EMBED, headers=headers)

    assert reply.status_code == status
    assert bool(engine.requests) == (status == 200)
    if status == 401:
        assert reply.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"api-key": "k1"}, 200),
        ({"x-api-key": "k2"}, 200),
        ({"api-key": "t0ken"}, 200),
        ({"authorization": "Bearer unused", "api-key": "k1"}, 200),
        ({"authorization": "Basic k3", "x-api-key": "k1"}, 200),
        ({"x-api-key": "k3"}, 401),
        ({"x-api-key": "Bearer k1"}, 401),
        ({"api-key": ""}, 401),
        ({"key": "k1"}, 401),
    ],
    ids=str,
)
async def test_a_key_counts_in_any_header_that_clients_use(headers: dict[str, str], status: int) -> None:
    async with gateway(accepted_keys=("k1", "k2"), endpoint=ENDPOINT) as running:
        reply = await running.http.post("/v1/embeddings", json=EMBED, headers=headers)

    assert reply.status_code == status


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/health", 401), ("/readyz", 401), ("/v1/models", 401), ("/v1/nothing", 401)],
)
async def test_with_keys_set_only_liveness_is_public(path: str, status: int) -> None:
    async with gateway(accepted_keys=("k1",)) as running:
        reply = await running.http.get(path)

    assert reply.status_code == status


@pytest.mark.parametrize("authorization", ["Bearer k1", "Bearer", ""])
async def test_the_internal_routes_want_the_gateways_own_token(authorization: str) -> None:
    async with gateway(accepted_keys=("k1",), endpoint=ENDPOINT) as running:
        identity = await running.http.get("/internal/identity", headers={"authorization": authorization})
        shutdown = await running.http.post("/internal/shutdown", headers={"authorization": authorization})

    assert (identity.status_code, shutdown.status_code) == (401, 401)


async def test_without_an_endpoint_the_internal_routes_are_closed(running: Gateway) -> None:
    reply = await running.http.post("/internal/shutdown", headers={"authorization": "Bearer"})

    assert reply.status_code == 401


PAGE = {"origin": "http://localhost:3000"}
ASKS_FIRST = PAGE | {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization",
}


async def test_a_configured_page_may_ask_and_read_the_answer() -> None:
    configured = settings(cors_origins=("http://localhost:3000",))
    async with gateway(configured=configured, accepted_keys=("k1",)) as running:
        preflight = await running.http.options("/v1/embeddings", headers=ASKS_FIRST)
        headers = PAGE | {"authorization": "Bearer k1"}
        answer = await running.http.post("/v1/embeddings", json=EMBED, headers=headers)
        keyless = await running.http.post("/v1/embeddings", json=EMBED, headers=PAGE)

    assert (preflight.status_code, preflight.content) == (204, b"")
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert [reply.headers["access-control-allow-origin"] for reply in (preflight, answer, keyless)] == [
        "http://localhost:3000"
    ] * 3
    assert (answer.status_code, keyless.status_code) == (200, 401)


@pytest.mark.parametrize("origin", ["http://localhost:3001", "https://localhost:3000", "null"])
async def test_no_other_page_may(origin: str) -> None:
    async with gateway(configured=settings(cors_origins=("http://localhost:3000",))) as running:
        preflight = await running.http.options("/v1/embeddings", headers=ASKS_FIRST | {"origin": origin})
        answer = await running.http.post("/v1/embeddings", json=EMBED, headers={"origin": origin})

    assert (preflight.status_code, answer.status_code) == (403, 403)
    assert "access-control-allow-origin" not in preflight.headers


async def test_by_default_no_page_may_ask(running: Gateway) -> None:
    preflight = await running.http.options("/v1/embeddings", headers=ASKS_FIRST)

    assert preflight.status_code == 403


async def test_programs_that_are_no_pages_get_no_cors_headers(running: Gateway) -> None:
    reply = await running.http.post("/v1/embeddings", json=EMBED)

    assert not [name for name in reply.headers if name.startswith("access-control")]
