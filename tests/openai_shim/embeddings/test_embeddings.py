import asyncio
import base64
import struct

import pytest

from engine.types import EmbedRequest
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import EMBEDDER, FakeEngine, fake_vector, settings, soon


def as_float32(vector: list[float]) -> list[float]:
    return list(struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector)))


async def test_the_openai_client_gets_the_vectors_in_order_with_usage(running: Gateway) -> None:
    reply = await running.openai.embeddings.create(model=EMBEDDER, input=["a", "bcd"])

    assert reply.model_dump() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": as_float32(fake_vector("a"))},
            {"object": "embedding", "index": 1, "embedding": as_float32(fake_vector("bcd"))},
        ],
        "model": EMBEDDER,
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }


async def test_vectors_are_lists_of_numbers_unless_base64_is_asked_for(running: Gateway) -> None:
    """Plain HTTP clients cannot read base64; openai-node reads zeros from a list it asked to be base64."""
    body = {"model": EMBEDDER, "input": "a"}

    unsaid = (await running.http.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
    floats = (await running.http.post("/v1/embeddings", json=body | {"encoding_format": "float"})).json()
    packed = (await running.http.post("/v1/embeddings", json=body | {"encoding_format": "base64"})).json()

    expected = as_float32(fake_vector("a"))
    assert as_float32(unsaid) == as_float32(floats["data"][0]["embedding"]) == expected
    assert list(struct.unpack("<4f", base64.b64decode(packed["data"][0]["embedding"]))) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"input": "a text"}, EmbedRequest(("a text",), EMBEDDER)),
        ({"input": ["a", "b"]}, EmbedRequest(("a", "b"), EMBEDDER)),
        ({"input": [15339, 1917]}, EmbedRequest(("hello world",), EMBEDDER)),
        ({"input": [[15339], [9468, 99, 247]]}, EmbedRequest(("hello", "🦙"), EMBEDDER)),
        ({"input": [9468]}, EmbedRequest(("\ufffd",), EMBEDDER)),
        ({"input": "a", "dimensions": 2}, EmbedRequest(("a",), EMBEDDER, dimensions=2)),
        ({"input": "a", "model": f"{EMBEDDER}:query"}, EmbedRequest(("a",), EMBEDDER, "query")),
        ({"input": "a", "model": f"{EMBEDDER}:document"}, EmbedRequest(("a",), EMBEDDER, "document")),
        ({"input": "a", "input_type": "query"}, EmbedRequest(("a",), EMBEDDER, "query")),
        ({"input": "a", "model": None}, EmbedRequest(("a",), None)),
    ],
    ids=str,
)
async def test_every_form_of_a_request_reaches_the_engine_as_meant(
    running: Gateway, body: dict[str, object], expected: EmbedRequest
) -> None:
    reply = await running.http.post("/v1/embeddings", json={"model": EMBEDDER} | body)

    assert reply.status_code == 200
    assert running.engine.requests == [expected]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": 7}, "input"),
        ({"input": ["a", 7]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": "2"}, "dimensions"),
        ({"input": "a", "model": 7}, "model"),
        ({"input": "a", "input_type": "passage"}, "input_type"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_wrong_request_is_a_400_that_names_the_parameter(
    running: Gateway, body: dict[str, object], param: str
) -> None:
    reply = await running.http.post("/v1/embeddings", json={"model": EMBEDDER} | body)

    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert running.engine.requests == []


@pytest.mark.parametrize(
    ("policy", "status", "asked"),
    [
        ("cl100k", 200, [EmbedRequest(("hello world",), EMBEDDER)]),
        ("native", 200, [EmbedRequest(((15339, 1917),), EMBEDDER)]),
        ("reject", 400, []),
    ],
)
async def test_the_setting_says_whose_token_ids_they_are(
    policy: str, status: int, asked: list[EmbedRequest]
) -> None:
    async with gateway(configured=settings(token_inputs=policy)) as running:
        reply = await running.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": [15339, 1917]})

    assert reply.status_code == status
    assert running.engine.requests == asked
    assert reply.headers["x-token-inputs"] == policy


@pytest.mark.parametrize(("policy", "status", "cut"), [("error", 400, None), ("truncate", 200, "1")])
async def test_a_text_longer_than_the_model_reads_is_an_error_unless_configured_otherwise(
    policy: str, status: int, cut: str | None
) -> None:
    async with gateway(configured=settings(long_inputs=policy)) as running:
        reply = await running.http.post("/v1/embeddings", json={"input": ["a", "a" * 600]})

    assert (reply.status_code, reply.headers.get("x-truncated-inputs")) == (status, cut)


async def test_an_unknown_token_id_is_a_400_that_names_it(running: Gateway) -> None:
    reply = await running.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": [[1], [2, 100300]]})

    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "input[1]")
    assert "100300" in error["message"]


async def test_the_reply_says_which_device_computed_it(running: Gateway) -> None:
    reply = await running.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"})

    assert reply.headers["x-device"] == "cpu"
    assert "x-npu-emulated" not in reply.headers


@pytest.mark.parametrize("characters", [1, 500_000])
async def test_a_caller_who_leaves_takes_the_request_along(characters: int) -> None:
    """The server stops reading while much of a body waits; it must read again to notice the end."""
    engine = FakeEngine()
    engine.admission.clear()
    async with gateway(engine) as running:
        asked = {"model": EMBEDDER, "input": "a" * characters}
        call = asyncio.create_task(running.http.post("/v1/embeddings", json=asked))
        await soon(engine.started.wait())

        call.cancel()

        await soon(engine.ended.wait())
