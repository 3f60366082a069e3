"""`npu-gateway mcp` where no MCP client has started it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.cli.commands import environment
from tests.mcp_server.wire import MCP, SECONDS


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_in_a_terminal_it_says_what_it_is_and_ends_with_the_input(tmp_path: Path) -> None:
    """Its home is a file, so that it starts no gateway."""
    home = tmp_path / "home"
    home.touch()
    terminal, stdin = os.openpty()
    os.write(terminal, b"\x04")  # Ctrl-D
    done = subprocess.run(
        MCP, stdin=stdin, capture_output=True, env=environment(home), timeout=SECONDS, check=False
    )
    os.close(terminal)
    os.close(stdin)

    assert done.stderr.startswith(b"This is the MCP server")
    assert b"npu-gateway install --client" in done.stderr
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="closes a stream as POSIX shells do")
@pytest.mark.parametrize("closed", ["<&-", ">&-"], ids=["input", "output"])
def test_without_a_stream_to_speak_on_it_says_so(tmp_path: Path, closed: str) -> None:
    command = ("sh", "-c", f'exec "$@" {closed}', "sh", *MCP)
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(tmp_path), timeout=SECONDS, check=False
    )

    assert done.returncode == 1
    assert done.stderr == (
        "npu-gateway: MCP needs standard input and output: have an MCP client start `npu-gateway mcp`.\n"
    )
