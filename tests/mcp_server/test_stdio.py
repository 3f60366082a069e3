"""The process: what it answers on its pipes, what it never writes there, and every way it ends."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import psutil
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from engine.daemon import claim, ensure, find
from engine.settings import Home
from tests.mcp_server.canned import command, starts
from tests.mcp_server.wire import CANNED_MCP, Wire, initialize, until, until_chats, wired

HEAVY = {"numpy", "onnxruntime", "onnxruntime_genai", "onnx", "tokenizers", "sanic"}


async def until_home_chats(home: Home, count: int) -> None:
    endpoint = await find(home)
    assert endpoint
    await until_chats(endpoint, count)


async def test_the_official_client_lists_three_tools_and_gets_results(home: Home) -> None:
    server = StdioServerParameters(
        command=CANNED_MCP[0], args=[CANNED_MCP[1]], env={"NPU_GATEWAY_HOME": str(home.root)}
    )

    async with Client(server) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        embedded = await client.call_tool("embed", {"texts": ["a"]})
        completed = await client.call_tool("complete", {"prompt": "hello"})
        health = await client.call_tool("health", {})

    assert names == ["embed", "complete", "health"]
    assert embedded.structured_content["count"] == 1
    assert completed.structured_content["text"] == "user: hello. "
    assert health.structured_content["status"] == "ok"


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_clients_of_the_handshake_era_are_served(home: Home, version: str) -> None:
    async with wired(home) as wire:
        await wire.send(initialize(version))
        initialized = (await wire.receive())["result"]
        await wire.send({"method": "notifications/initialized"})
        await wire.send({"id": "b", "method": "tools/call", "params": {"name": "health", "arguments": {}}})
        called = await wire.receive()

    assert initialized["protocolVersion"] == version
    assert initialized["serverInfo"] == {
        "name": "npu-gateway",
        "title": "Local AI gateway",
        "version": "0.1.0",
    }
    assert called["result"]["structuredContent"]["status"] == "ok"


async def test_clients_of_the_modern_era_are_served(home: Home) -> None:
    async with wired(home) as wire:
        discovered = await wire.ask("server/discover")
        called = await wire.call("health")

    assert discovered["result"]["supportedVersions"] == ["2026-07-28"]
    assert called["structuredContent"]["status"] == "ok"


async def test_the_tool_list_does_not_wait_for_a_gateway(home: Home) -> None:
    """Clients drop servers that are slow to introduce themselves. Here no gateway ever answers."""
    with claim(home, "127.0.0.1", 0, auto_started=True):
        async with wired(home) as wire:
            listed = await wire.ask("tools/list")

    assert len(listed["result"]["tools"]) == 3


async def test_end_of_input_ends_an_idle_server(home: Home) -> None:
    async with wired(home) as wire:
        await wire.ask("tools/list")

        assert await wire.end_input() == (0, b"")


async def test_end_of_input_during_a_call_ends_the_server_and_the_generation(home: Home) -> None:
    async with wired(home) as wire:
        await wire.call("health")
        await wire.request("tools/call", name="complete", arguments={"prompt": "endless"})
        await until_home_chats(home, 1)

        status, rest = await wire.end_input()

    assert status == 0
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())
    await until_home_chats(home, 0)


async def test_a_killed_server_leaves_no_generation_behind(home: Home) -> None:
    async with wired(home) as wire:
        await wire.call("health")
        await wire.request("tools/call", name="complete", arguments={"prompt": "endless"})
        await until_home_chats(home, 1)
        wire.process.kill()
        await wire.process.wait()

        await until_home_chats(home, 0)


async def test_a_cancelled_call_gets_no_reply_and_frees_the_engine(home: Home) -> None:
    async with wired(home) as wire:
        await wire.call("health")
        request_id = await wire.request("tools/call", name="complete", arguments={"prompt": "endless"})
        await until_home_chats(home, 1)
        await wire.send({"method": "notifications/cancelled", "params": {"requestId": request_id}})
        await until_home_chats(home, 0)

        assert (await wire.call("health"))["structuredContent"]["queue"]["chat"] == 0


async def test_a_line_of_a_megabyte_is_read_whole(home: Home) -> None:
    async with wired(home) as wire:
        called = await wire.call("embed", texts=["x" * 16_000] * 64)

    assert called["structuredContent"]["count"] == 64


NOISY = """
import os, pathlib, runpy, sys, threading, time
def shout():
    while not pathlib.Path({signal!r}).exists():
        time.sleep(0.02)
    os.write(1, b'native shout\\n'); print('shout', flush=True); print('late shout')
    sys.stderr.write('shouted'); sys.stderr.flush()
threading.Thread(target=shout, daemon=True).start()
sys.argv = [{program!r}]
runpy.run_path({program!r}, run_name='__main__')
"""


async def test_what_libraries_print_does_not_reach_the_wire(home: Home, tmp_path: Path) -> None:
    """Prints while serving, and text that is still buffered when the interpreter ends."""
    noisy, signal = tmp_path / "noisy.py", tmp_path / "signal"
    noisy.write_text(NOISY.format(program=CANNED_MCP[1], signal=str(signal)), encoding="utf-8")
    async with wired(home, (sys.executable, str(noisy))) as wire:
        await wire.ask("tools/list")
        signal.touch()
        await until(lambda: b"shouted" in (home.root / "stderr.txt").read_bytes())
        await wire.ask("tools/list")

        assert await wire.end_input() == (0, b"")


async def test_the_process_stays_thin(home: Home) -> None:
    """From start through calls of every tool, no numerical library and no server framework is loaded."""
    traced = (CANNED_MCP[0], "-X", "importtime", CANNED_MCP[1])
    async with wired(home, traced) as wire:
        await wire.call("embed", texts=["a"], output="vectors")
        await wire.call("complete", prompt="hello")
        await wire.call("health")
        await wire.end_input()

    trace = (home.root / "stderr.txt").read_text()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in trace.splitlines()}
    assert "mcp" in imported
    assert imported & HEAVY == set()


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted differently elsewhere")
async def test_the_process_stays_below_80_megabytes(home: Home) -> None:
    async with wired(home) as wire:
        await wire.call("embed", texts=["a"])
        await wire.call("complete", prompt="hello")
        rss = psutil.Process(wire.process.pid).memory_info().rss

    assert rss < 80_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="passes a pipe by its number")
async def test_the_process_ends_with_its_parent_even_if_its_input_stays_open(home: Home) -> None:
    """The write end of its input may have leaked to a process that lives on."""
    read_end, write_end = os.pipe()
    host = (
        f"import subprocess, sys; p = subprocess.Popen({list(CANNED_MCP)!r}, stdin={read_end}, "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print(p.pid, flush=True); p.wait()"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        host,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=[read_end],
        env=os.environ | {"NPU_GATEWAY_HOME": str(home.root)},
    )
    try:
        assert parent.stdout
        child = psutil.Process(int(await asyncio.wait_for(parent.stdout.readline(), 20)))
        await until(lambda: any(home.log.glob("mcp-*.log")))  # it is up and asks for its gateway
        parent.kill()
        await parent.communicate()

        await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    finally:
        os.close(read_end)
        os.close(write_end)


async def test_many_servers_at_once_share_one_gateway_and_its_successor(home: Home) -> None:
    async def answers(wire: Wire) -> bool:
        return bool((await wire.call("embed", texts=["a"]))["structuredContent"]["count"] == 1)

    async with asyncio.TaskGroup() as tasks:
        done = asyncio.Event()
        ready: list[Wire] = []

        async def hold() -> None:
            async with wired(home) as wire:
                assert await answers(wire)
                ready.append(wire)
                await done.wait()

        for _ in range(8):
            tasks.create_task(hold())
        await until(lambda: len(ready) == 8)
        assert len(starts(home)) == 1

        first = await find(home)
        assert first
        psutil.Process(first.pid).kill()

        assert await asyncio.gather(*(answers(wire) for wire in ready)) == [True] * 8
        assert len(starts(home)) == 2
        done.set()


async def test_the_server_attaches_to_a_gateway_that_already_runs(home: Home) -> None:
    running = await ensure(home, command=command())

    async with wired(home) as wire:
        await wire.call("health")

    assert starts(home) == [running.instance]


async def test_warnings_go_to_standard_error_and_details_to_a_file(home: Home) -> None:
    async with wired(home) as wire:
        await wire.call("health")

    assert (home.root / "stderr.txt").read_bytes() == b""
    (log,) = home.log.glob("mcp-*.log")
    assert re.search(r"INFO .*/health", log.read_text())
