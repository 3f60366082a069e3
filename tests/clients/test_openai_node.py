"""The official client for JavaScript, where Node.js is installed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import CAPITAL, CHAT, EMBED, TEXTS, Address, Node

ASK = {"model": CHAT, "messages": [{"role": "user", "content": CAPITAL}], "temperature": 0, "max_tokens": 40}


@pytest.fixture(scope="module")
def seen(address: Address, node: Node) -> dict[str, Any]:
    """What the script beside this file prints."""
    asked = json.dumps({"embed": EMBED, "texts": TEXTS, "chat": ASK})
    printed = node.printed(Path(__file__).with_name("openai_node.mjs"), address, asked)
    return dict(json.loads(printed))


def test_its_vectors_are_those_of_plain_http(seen: dict[str, Any], address: Address) -> None:
    """It asks for base64 unasked, and would read every other reply as 96 zeros, without an error."""
    assert seen["vectors"] == [pytest.approx(vector, abs=1e-6) for vector in address.vectors]


def test_it_gets_the_same_answer_whole_and_streamed(seen: dict[str, Any]) -> None:
    assert "Paris" in seen["whole"]
    assert seen["streamed"] == seen["whole"]


def test_it_raises_its_own_errors(seen: dict[str, Any]) -> None:
    assert seen["refused"] == {
        "name": "NotFoundError",
        "code": "model_not_found",
        "type": "invalid_request_error",
    }
