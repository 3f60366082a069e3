"""A home that cannot be used keeps no client waiting: the server introduces itself, and its tools say why."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.daemon import ensure, retire
from engine.settings import Home
from tests.mcp_server.canned import command
from tests.mcp_server.wire import MCP, Wire, initialize, wired

SERVER = {"name": "npu-gateway", "title": "Local AI gateway", "version": "0.1.0"}
RIGHTS = "dac_override,-dac_read_search"
BOUND_BY_MODES = (
    ("setpriv", "--bounding-set", f"-{RIGHTS}", "--inh-caps", f"-{RIGHTS}")
    if sys.platform == "linux" and os.geteuid() == 0
    else ()
)
"""Takes from root, who runs the tests in containers, the right to write where mode bits forbid it."""
needs_modes = pytest.mark.skipif(
    sys.platform == "win32" or bool(BOUND_BY_MODES and not shutil.which("setpriv")),
    reason="here mode bits forbid nothing",
)


def read_only(root: Path) -> None:
    root.mkdir()
    root.chmod(0o500)


def a_file_for(name: str) -> Callable[[Path], None]:
    def put(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("not a folder")

    return put


async def introduced(wire: Wire) -> dict[str, object]:
    await wire.send(initialize("2025-11-25"))
    introduction: dict[str, object] = (await wire.receive())["result"]["serverInfo"]
    return introduction


async def health_of(wire: Wire) -> dict[str, Any]:
    """The result of the tool, in the era of the handshake."""
    await wire.send({"id": 1, "method": "tools/call", "params": {"name": "health", "arguments": {}}})
    result: dict[str, Any] = (await wire.receive())["result"]
    return result


async def error_of(wire: Wire) -> str:
    result = await health_of(wire)
    assert result["isError"]
    return str(result["content"][0]["text"])


@pytest.mark.parametrize(
    ("spoil", "culprit"),
    [
        pytest.param(a_file_for(""), "", id="a file"),
        pytest.param(a_file_for("run"), "run", id="a file for run"),
        pytest.param(a_file_for("log"), "log", id="a file for log"),
        pytest.param(read_only, "run", id="read-only", marks=needs_modes),
    ],
)
async def test_the_tools_say_which_folder_cannot_be_used(
    tmp_path: Path, spoil: Callable[[Path], None], culprit: str
) -> None:
    root = tmp_path / "home"
    spoil(root)

    async with wired(Home(root), (*BOUND_BY_MODES, *MCP), stderr=tmp_path / "stderr.txt") as wire:
        introduction = await introduced(wire)
        error = await error_of(wire)

    assert introduction == SERVER
    assert f"No gateway can run in {root}: {root / culprit}" in error
    assert "NPU_GATEWAY_HOME" in error
    assert "Traceback" not in (tmp_path / "stderr.txt").read_text()


async def test_a_relative_home_is_refused_by_the_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with wired(Home(Path("here")), MCP, stderr=tmp_path / "stderr.txt") as wire:
        introduction = await introduced(wire)
        error = await error_of(wire)

    assert introduction == SERVER
    assert error == (
        "Error executing tool health: NPU_GATEWAY_HOME = 'here' depends on where a program starts: "
        "give a whole path."
    )
    assert "Traceback" not in (tmp_path / "stderr.txt").read_text()
    assert not (tmp_path / "here").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files, which Windows cannot")
async def test_on_a_full_disk_the_tools_say_so(tmp_path: Path) -> None:
    full = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *MCP)
    async with wired(Home(tmp_path / "home"), full, stderr=Path(os.devnull)) as wire:
        introduction = await introduced(wire)
        error = await error_of(wire)

    assert introduction == SERVER
    assert "The gateway cannot start" in error


async def test_where_no_log_can_be_kept_the_tools_work_all_the_same(home: Home, tmp_path: Path) -> None:
    """Somebody else's log folder, or a full disk, beside a gateway that runs."""
    await ensure(home, command=command())
    shutil.rmtree(home.log)
    home.log.write_text("not a folder")
    errors = tmp_path / "stderr.txt"

    async with wired(home, stderr=errors) as wire:
        introduction = await introduced(wire)
        health = await health_of(wire)

    assert introduction == SERVER
    assert health["structuredContent"]["status"] == "ok"
    (warning,) = errors.read_text().splitlines()
    assert f"{home.log / 'mcp-'}" in warning
    assert warning.endswith("no log is kept.")


async def test_a_home_that_is_deleted_while_server_and_gateway_run_hinders_no_call(home: Home) -> None:
    running = await ensure(home, command=command())
    async with wired(home) as wire:
        await wire.call("health")
        shutil.rmtree(home.root)
        health = await wire.call("health")

    home.root.mkdir(exist_ok=True)
    assert await retire(running)
    assert health["structuredContent"]["status"] == "ok"
