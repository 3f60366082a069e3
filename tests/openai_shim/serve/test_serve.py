"""`npu-gateway serve` as a process, with the real models."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import psutil
import pytest

from engine.daemon import Endpoint
from engine.daemon.endpoint import read
from engine.settings import Home
from tests.engine.cli.commands import RUN_MAIN, environment
from tests.openai_shim.processes import Served, serving, wait_until_up
from tests.windows_rules.aborted import FIRST_ACCEPT_FAILS

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]


def published(home: Home) -> Endpoint:
    """The endpoint of a gateway that is being started."""
    deadline = time.perf_counter() + 30
    while (endpoint := read(home)) is None:
        assert time.perf_counter() < deadline, "it did not start within 30 s"
        time.sleep(0.05)
    return endpoint


@pytest.fixture
def served(models_home: Home, tmp_path: Path) -> Iterator[Served]:
    with serving(models_home, tmp_path / "home") as started:
        yield started


def test_it_shows_how_to_use_it_and_what_came_up(served: Served) -> None:
    printed = wait_until_up(served)

    assert f"base_url {served.url}/v1" in printed
    assert '{"mcpServers": {"npu-gateway": {"command": "npu-gateway", "args": ["mcp"]}}}' in printed
    assert [line.split()[:4] for line in printed.splitlines()[-2:]] == [
        ["bge-small-en-v1.5", "embedding", "ready", "cpu"],
        ["smollm2-135m-instruct", "chat", "ready", "cpu"],
    ]


def test_the_openai_client_gets_unit_vectors_and_paris(gateway_home: Home) -> None:
    endpoint = read(gateway_home)
    assert endpoint is not None
    with openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", timeout=60) as client:
        vectors = [
            item.embedding
            for item in client.embeddings.create(model="bge-small-en-v1.5", input=["a cat", "a dog"]).data
        ]
        asked: dict[str, Any] = {"model": "smollm2-135m-instruct", "messages": CAPITAL}
        asked |= {"temperature": 0, "max_tokens": 40}
        answer = client.chat.completions.create(**asked).choices[0].message.content
        stream = client.chat.completions.create(**asked, stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert [len(vector) for vector in vectors] == [384, 384]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert "Paris" in answer
    assert streamed == answer


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_it_in_good_order_and_nothing_stays_behind(
    served: Served, number: signal.Signals
) -> None:
    wait_until_up(served)
    workers = served.workers()
    assert len(workers) >= 2

    served.process.send_signal(number)

    assert served.process.wait(timeout=20) == 0
    assert read(served.home) is None
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_killing_it_leaves_nothing_behind(served: Served) -> None:
    wait_until_up(served)
    workers = served.workers()

    served.process.kill()

    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_a_connection_that_cannot_be_accepted_does_not_make_it_deaf(tmp_path: Path) -> None:
    """Its models are not there, and no index to fetch them from: it answers all the same."""
    home = Home(tmp_path)
    command = [sys.executable, "-c", FIRST_ACCEPT_FAILS + RUN_MAIN, "serve", "--port", "0"]
    with subprocess.Popen(command, env=environment(tmp_path, PIP_INDEX_URL="http://127.0.0.1:9")) as gateway:
        try:
            endpoint = published(home)
            reply = httpx2.get(f"{endpoint.url}/healthz", trust_env=False, timeout=10)
        finally:
            gateway.kill()

    assert reply.status_code == 200


def test_a_second_one_says_who_is_there(gateway_home: Home) -> None:
    endpoint = read(gateway_home)
    assert endpoint is not None
    env = os.environ | {"NPU_GATEWAY_HOME": str(gateway_home.root)}
    command = [sys.executable, "-m", "engine.cli", "serve"]

    second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    automatic = subprocess.run([*command, "--auto"], env=env, capture_output=True, text=True, timeout=30)

    assert (second.returncode, endpoint.url in second.stderr) == (1, True)
    assert (automatic.returncode, automatic.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--embed", "nope"], 1, "nope"),
        (["--chat", "nope"], 1, "nope"),
        (["--chat", "phi-3-mini-4k-instruct"], 1, "npu-gateway pull phi-3-mini-4k-instruct"),
        (["--embed", "smollm2-135m-instruct"], 1, "not for embedding"),
        (["--device", "gpu"], 2, "gpu"),
        (["--host", "0.0.0.0"], 1, "api_key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_served_is_said_without_a_traceback(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "engine.cli", "serve", "--port", "0", *arguments],
        env=os.environ | {"NPU_GATEWAY_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert ended.returncode == status
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
