"""server.json (MCP registry) and manifest.json (.mcpb bundle) describe the package as it is."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import engine

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GOLDEN_TOOLS = Path(__file__).with_name("golden") / "tools.json"


def read(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def test_all_files_carry_the_version_of_the_project():
    """An MCP client that installs one version and attaches to another is hard to understand."""
    server, bundle = read("server.json"), read("manifest.json")

    assert {
        PROJECT["version"],
        engine.__version__,
        server["version"],
        server["packages"][0]["version"],
        bundle["version"],
    } == {PROJECT["version"]}


def test_both_start_the_command_that_the_package_installs():
    server, bundle = read("server.json"), read("manifest.json")
    (package,) = server["packages"]

    assert package["identifier"] == bundle["name"] == PROJECT["name"]
    assert PROJECT["name"] in PROJECT["scripts"]  # what `uvx NAME` and `uv run NAME` start
    assert [argument["value"] for argument in package["packageArguments"]] == ["mcp"]
    assert bundle["server"]["mcp_config"]["args"][-2:] == [PROJECT["name"], "mcp"]
    assert (ROOT / bundle["server"]["entry_point"]).is_file()


def test_the_bundle_lists_the_tools_there_are():
    tools = json.loads(GOLDEN_TOOLS.read_text(encoding="utf-8"))

    assert [tool["name"] for tool in read("manifest.json")["tools"]] == [tool["name"] for tool in tools]


def test_the_registry_accepts_the_name_and_the_description():
    """The limits of schema 2025-12-11 that a change of words is likely to break."""
    server = read("server.json")

    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", server["name"])
    assert 1 <= len(server["description"]) <= 100
    assert 1 <= len(server["title"]) <= 100


def test_the_bundle_asks_for_the_python_that_the_project_asks_for():
    assert read("manifest.json")["compatibility"]["runtimes"]["python"] == PROJECT["requires-python"]
