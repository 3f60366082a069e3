"""How many connections the system lets the gateway have."""

import subprocess
import sys

import pytest

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
