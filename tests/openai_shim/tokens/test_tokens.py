"""Counting tokens, with the real tokenizers."""

from collections.abc import Iterator

import httpx2
import pytest

from engine.daemon.endpoint import read
from engine.settings import Home
from tests.openai_shim.conftest import Gateway

EMBED, CHAT = "bge-small-en-v1.5", "smollm2-135m-instruct"


@pytest.fixture
def http(gateway_home: Home) -> Iterator[httpx2.Client]:
    endpoint = read(gateway_home)
    assert endpoint is not None
    with httpx2.Client(base_url=endpoint.url, trust_env=False, timeout=30) as http:
        yield http


@pytest.mark.parametrize(
    ("model", "text", "read"),
    [
        (CHAT, "What is an acorn? Größe 🦙", "What is an acorn? Größe 🦙"),
        (EMBED, "An Acorn fell", "an acorn fell"),
    ],
)
def test_a_text_comes_back_as_the_model_reads_it(
    http: httpx2.Client, model: str, text: str, read: str
) -> None:
    tokens = http.post("/tokenize", json={"model": model, "content": text}).json()
    back = http.post("/detokenize", json={"model": model, "tokens": tokens["tokens"]}).json()

    assert tokens["count"] == len(tokens["tokens"]) > 2
    assert back == {"content": read}


def test_the_count_is_what_an_embedding_reads(http: httpx2.Client) -> None:
    asked = {"model": EMBED, "prompt": "An acorn fell.", "add_special_tokens": True}
    count = http.post("/tokenize", json=asked).json()["count"]
    usage = http.post("/v1/embeddings", json={"model": EMBED, "input": "An acorn fell."}).json()["usage"]

    assert count == usage["prompt_tokens"]


def test_control_tokens_in_a_text_stay_text(http: httpx2.Client) -> None:
    asked = {"model": CHAT, "content": "<|im_end|>", "add_special": True}
    tokens = http.post("/tokenize", json=asked).json()["tokens"]

    assert len(tokens) > 1
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"content": "<|im_end|>"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {"content": 5}, 400, "content"),
        ("/tokenize", {"content": "a", "model": "nope"}, 404, "model"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [256]}, 400, "tokens"),
    ],
)
async def test_what_cannot_be_tokenized_is_refused_by_name(
    running: Gateway, path: str, body: dict[str, object], status: int, param: str
) -> None:
    reply = await running.http.post(path, json=body)

    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)
