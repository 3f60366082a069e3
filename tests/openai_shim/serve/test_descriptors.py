"""How many connections the system lets the gateway have."""

import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from engine.settings import Home

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from openai_shim.serve.descriptors import connection_capacity
print(connection_capacity(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "capacity", "raised"),
    [(256, 4096, 1000, 4096), (256, 256, 128, 256), (256, 512, 384, 512), (100, 100, 32, 100)],
)
def test_the_soft_limit_is_raised_and_connections_stay_below_it(
    soft: int, hard: int, capacity: int, raised: int
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard)], capture_output=True, timeout=30, check=True
    )

    assert ended.stdout.split() == [b"%d" % capacity, b"%d" % raised]


@pytest.mark.parametrize("limit", [64, 256])
def test_a_crowd_of_idle_connections_locks_nobody_out_and_floods_no_log(limit: int, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.openai_shim.serve.crowded_gateway", str(limit), str(tmp_path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process, ExitStack() as crowd:
        crowd.callback(process.kill)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for _ in range(336):
            crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))

        answers = [
            httpx2.get(f"http://127.0.0.1:{port}/v1/models", timeout=10, trust_env=False) for _ in range(5)
        ]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert (Home(tmp_path).log / "gateway.log").stat().st_size < 10_000
