"""What MCP's own tools say about the server: the conformance suite over HTTP, the Inspector over stdio."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from engine.settings import Home
from tests.mcp_server.canned import dismiss
from tests.mcp_server.official import tool
from tests.mcp_server.wire import CANNED_MCP, SECONDS, address_of

CONFORMANCE = Path(__file__).with_name("conformance")


@pytest.fixture(scope="module")
def suite() -> Sequence[str]:
    return tool("@modelcontextprotocol/conformance", "dist/index.js")


@pytest.fixture(scope="module")
async def url(suite: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Where the product's server answers, with the suite's fixtures beside its own tools."""
    home = Home(tmp_path_factory.mktemp("conformance"))
    command = (sys.executable, "-m", "tests.mcp_server.conformance.server")
    async with address_of(command, home) as address:
        yield address
    await dismiss(home)


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_the_conformance_suite_finds_nothing_unexpected(
    suite: Sequence[str], url: str, revision: str, tmp_path: Path
) -> None:
    """Both eras. What is expected, and why: conformance/expected-failures-REVISION.yml."""
    baseline = CONFORMANCE / f"expected-failures-{revision}.yml"
    arguments = ("--suite", "all", "--spec-version", revision, "--expected-failures", str(baseline))

    status, output = await finished(*suite, "server", "--url", url, *arguments, "-o", str(tmp_path))

    assert "=== SUMMARY ===" in output
    assert status == 0, output.partition("=== SUMMARY ===")[2]


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_inspector_finds_no_schema_that_some_client_refuses(
    home: Home, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_CATALOG_PATH", str(home.root / "catalog.json"))  # else it makes one in the user's
    inspector = tool("@modelcontextprotocol/inspector", "clients/launcher/build/index.js")
    options = ("--cli", "--protocol-era", era, "-q", "-e", f"NPU_GATEWAY_HOME={home.root}")

    status, output = await finished(*inspector, *options, *CANNED_MCP, "--method", "tools/list", "--strict")

    assert '"embed"' in output
    assert status == 0, output


async def finished(*command: str) -> tuple[int | None, str]:
    """Exit status of a command, and what it wrote to both outputs."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, output.decode()
