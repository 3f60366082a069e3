"""An MCP server process spoken to over raw pipes, one JSON line at a time, without the SDK."""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.daemon import Endpoint
from engine.remote.client import GatewayClient
from engine.settings import Home
from tests.engine.cli.commands import RUN_MAIN

ROOT = Path(__file__).parents[2]
MCP = (sys.executable, "-c", RUN_MAIN, "mcp")
CANNED_MCP = (sys.executable, str(Path(__file__).with_name("canned_mcp.py")))
MODERN = "2026-07-28"
_META = "io.modelcontextprotocol"
SECONDS = 60.0
"""Bound of every wait."""


class Wire:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.notifications: list[dict[str, Any]] = []
        self._next_id = 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The reply to a request of the modern era (no handshake)."""
        return await self.reply_to(await self.request(method, **params))

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result of a tool call."""
        reply = await self.ask("tools/call", name=tool, arguments=arguments)
        return dict(reply["result"])

    async def request(self, method: str, **params: Any) -> int:
        """Send and do not wait; the id to wait for."""
        self._next_id += 1
        meta = {
            f"{_META}/protocolVersion": MODERN,
            f"{_META}/clientInfo": {"name": "wire", "version": "0"},
            f"{_META}/clientCapabilities": {},
            "progressToken": self._next_id,
        }
        await self.send({"id": self._next_id, "method": method, "params": params | {"_meta": meta}})
        return self._next_id

    async def reply_to(self, request_id: int) -> dict[str, Any]:
        """The reply with this id; notifications that come before it are kept."""
        while "id" not in (message := await self.receive()):
            self.notifications.append(message)
        assert message["id"] == request_id
        return message

    async def send(self, message: dict[str, Any]) -> None:
        await self.send_line(json.dumps({"jsonrpc": "2.0"} | message).encode())

    async def send_line(self, line: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + b"\n")
        await self.process.stdin.drain()

    async def send_batch(self, *messages: Any) -> None:
        await self.send_line(json.dumps(messages).encode())

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._receive_line()
        assert message["jsonrpc"] == "2.0"
        return message

    async def receive_batch(self) -> list[dict[str, Any]]:
        batch = await self._receive_line()
        assert isinstance(batch, list)
        return batch

    async def _receive_line(self) -> Any:
        assert self.process.stdout
        line = await asyncio.wait_for(self.process.stdout.readline(), SECONDS)
        assert line, "the server closed its output"
        return json.loads(line)

    async def end_input(self) -> tuple[int, bytes]:
        """Close the server's input and wait for its end: exit status and the rest of its output."""
        assert self.process.stdin
        self.process.stdin.close()
        rest, _ = await asyncio.wait_for(self.process.communicate(), SECONDS)
        return await self.process.wait(), rest


def initialize(version: str) -> dict[str, Any]:
    """The request that opens a conversation in this version of MCP, before 2026."""
    client = {"name": "wire", "version": "0"}
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
    return {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": params}


@asynccontextmanager
async def wired(
    home: Home, command: Sequence[str] = CANNED_MCP, *, stderr: Path | None = None
) -> AsyncIterator[Wire]:
    """A running server; its standard error goes to `stderr.txt` in the home, unless told where else."""
    if stderr is None:
        home.root.mkdir(exist_ok=True)
    with (stderr or home.root / "stderr.txt").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"NPU_GATEWAY_HOME": str(home.root), "PYTHONUNBUFFERED": ""},
            limit=2**24,
        )
    try:
        yield Wire(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def address_of(command: Sequence[str], home: Home) -> AsyncIterator[str]:
    """A running server that prints its address as its first line."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"NPU_GATEWAY_HOME": str(home.root)},
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout
        yield (await asyncio.wait_for(process.stdout.readline(), SECONDS)).decode().strip()
        process.terminate()
        await asyncio.wait_for(process.wait(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for what happens in another process, which sends no event."""
    async with asyncio.timeout(SECONDS):
        while not (await met if inspect.isawaitable(met := condition()) else met):
            await asyncio.sleep(0.02)


async def until_chats(endpoint: Endpoint, count: int) -> None:
    """Wait until the gateway runs so many generations."""
    async with GatewayClient.of(endpoint) as gateway:

        async def reached() -> bool:
            return (await gateway.health()).queue.chat == count

        await until(reached)
