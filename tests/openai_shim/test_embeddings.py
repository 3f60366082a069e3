import asyncio
import base64
import struct

import pytest

from engine.types import EmbedRequest
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import EMBEDDER, FakeEngine, fake_vector, soon


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
        ({"input": [101, 102]}, EmbedRequest(((101, 102),), EMBEDDER)),
        ({"input": [[101], [102, 3]]}, EmbedRequest(((101,), (102, 3)), EMBEDDER)),
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


async def test_the_reply_says_which_device_computed_it(running: Gateway) -> None:
    reply = await running.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"})

    assert reply.headers["x-device"] == "cpu"
    assert "x-npu-emulated" not in reply.headers


async def test_a_caller_who_leaves_takes_the_request_along() -> None:
    engine = FakeEngine()
    engine.admission.clear()
    async with gateway(engine) as running:
        call = asyncio.create_task(
            running.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"})
        )
        await soon(engine.started.wait())

        call.cancel()

        await soon(engine.ended.wait())
