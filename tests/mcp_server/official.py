"""MCP's official tools and the Node.js for them; `npm install --prefix tests/mcp_server` fetches both."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

MODULES = Path(__file__).with_name("node_modules")
NODE = "bin/node.exe" if sys.platform == "win32" else "bin/node"


def tool(package: str, program: str) -> Sequence[str]:
    """The command that runs a package's program; skips the test if it is not installed."""
    return str(installed("node", NODE)), str(installed(package, program))


def installed(package: str, name: str) -> Path:
    """A file of a package; skips the test if it is not installed."""
    file = MODULES / package / name
    if not file.is_file():
        pytest.skip(f"the npm package {package} is missing: npm install --prefix tests/mcp_server")
    return file
