"""Installs a wheel in each way that the README names, and asks what it installed at both doors.

    python scripts/try_install_paths.py dist/npu_gateway-0.1.0-py3-none-any.whl
    python scripts/try_install_paths.py dist/npu_gateway-0.1.0-py3-none-any.whl pipx

The gateways get a home of their own, so the first one fetches the models.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcp import StdioServerParameters
from mcp.client import Client
from try_first_run import ask, wait_until_ok

from engine.daemon.endpoint import Endpoint, read
from engine.settings import Home

UV = (sys.executable, "-m", "uv", "--quiet")
START_SECONDS = 120


@dataclass(frozen=True)
class Way:
    """install: commands. command: what starts npu-gateway afterwards."""

    name: str
    install: Sequence[Sequence[str]]
    command: Sequence[str]


def main() -> None:
    wheel, wanted = str(Path(sys.argv[1]).resolve(strict=True)), sys.argv[2:]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for way in ways(wheel, folder):
            if not wanted or way.name in wanted:
                try_way(way, folder)


def ways(wheel: str, folder: Path) -> Sequence[Way]:
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    return (
        Way(
            "pip",
            [
                [sys.executable, "-m", "venv", str(folder / "venv")],
                [str(programs / "python"), "-m", "pip", "install", "--quiet", wheel],
            ],
            [str(programs / "npu-gateway")],
        ),
        Way("uv tool install", [[*UV, "tool", "install", wheel]], [str(folder / "uv-bin" / "npu-gateway")]),
        Way("uvx", [], [*UV, "tool", "run", "--from", wheel, "npu-gateway"]),
        Way(
            "pipx",
            [[*UV, "tool", "run", "pipx", "install", "--quiet", wheel]],
            [str(folder / "pipx-bin" / "npu-gateway")],
        ),
    )


def environment(folder: Path) -> Mapping[str, str]:
    return os.environ | {
        "NPU_GATEWAY_HOME": str(folder / "home"),
        "UV_TOOL_DIR": str(folder / "uv"),
        "UV_TOOL_BIN_DIR": str(folder / "uv-bin"),
        "PIPX_HOME": str(folder / "pipx"),
        "PIPX_BIN_DIR": str(folder / "pipx-bin"),
    }


def try_way(way: Way, folder: Path) -> None:
    env = environment(folder)
    begin = time.monotonic()
    for words in way.install:
        subprocess.run(words, env=env, cwd=folder, check=True)
    installed = time.monotonic()
    with subprocess.Popen([*way.command, "serve", "--port", "0"], env=env, cwd=folder) as gateway:
        try:
            endpoint = published(gateway, Home(folder / "home"))
            wait_until_ok(gateway, endpoint.url)
            ready = time.monotonic()
            ask(endpoint.url)
            asyncio.run(ask_over_mcp(way.command, env))
        finally:
            subprocess.run([*way.command, "stop"], env=env, cwd=folder, check=True)
    seconds = f"installed in {installed - begin:.1f} s, ready in {ready - installed:.1f} s"
    print(f"{way.name:16} {seconds}, answered at both doors")


def published(gateway: subprocess.Popen[bytes], home: Home) -> Endpoint:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert gateway.poll() is None, f"the gateway ended with status {gateway.returncode}"
        if endpoint := read(home):
            return endpoint
        time.sleep(0.1)
    raise TimeoutError(f"no gateway after {START_SECONDS} s")


async def ask_over_mcp(command: Sequence[str], env: Mapping[str, str]) -> None:
    server = StdioServerParameters(command=command[0], args=[*command[1:], "mcp"], env=dict(env))
    async with Client(server) as client:
        embedded = await client.call_tool("embed", {"texts": ["A cat sat on the mat."]})
        answered = await client.call_tool("complete", {"prompt": "What is the capital of France?"})
    assert not embedded.is_error, embedded
    assert "Paris" in str(answered.content), answered


if __name__ == "__main__":
    main()
