"""server.json (MCP registry) and manifest.json (.mcpb bundle) describe the package as it is."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest

import engine
from tests.mcp_server.official import installed

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GOLDEN_TOOLS = Path(__file__).with_name("golden") / "tools.json"


def read(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def test_all_files_carry_the_version_of_the_project() -> None:
    """An MCP client that installs one version and attaches to another is hard to understand."""
    server, bundle = read("server.json"), read("manifest.json")

    assert {server["version"], server["packages"][0]["version"], bundle["version"]} == {engine.__version__}


def test_both_start_the_command_that_the_package_installs() -> None:
    server, bundle = read("server.json"), read("manifest.json")
    (package,) = server["packages"]

    assert package["identifier"] == bundle["name"] == PROJECT["name"]
    assert PROJECT["name"] in PROJECT["scripts"]  # what `uvx NAME` and `uv run NAME` start
    assert [argument["value"] for argument in package["packageArguments"]] == ["mcp"]
    assert bundle["server"]["mcp_config"]["args"][-2:] == [PROJECT["name"], "mcp"]
    assert (ROOT / bundle["server"]["entry_point"]).is_file()


def test_the_bundle_lists_the_tools_there_are() -> None:
    tools = json.loads(GOLDEN_TOOLS.read_text(encoding="utf-8"))

    assert [tool["name"] for tool in read("manifest.json")["tools"]] == [tool["name"] for tool in tools]


def test_the_registry_accepts_server_json() -> None:
    """The schema that the file names; it is not ours to copy, so it is fetched."""
    server = read("server.json")
    try:
        schema = httpx2.get(server["$schema"], timeout=10).raise_for_status().json()
    except httpx2.TransportError as error:
        pytest.skip(f"{server['$schema']} cannot be reached: {error}")

    jsonschema.validate(server, schema)


def test_the_registry_accepts_the_words_that_are_likely_to_change() -> None:
    """Without the network: the limits of schema 2025-12-11, and of the registry's own check of the name."""
    server = read("server.json")

    assert re.fullmatch(
        r"[a-zA-Z0-9][a-zA-Z0-9.-]*[a-zA-Z0-9]/[a-zA-Z0-9][a-zA-Z0-9._-]*[a-zA-Z0-9]", server["name"]
    )
    assert 1 <= len(server["description"]) <= 100
    assert 1 <= len(server["title"]) <= 100


def test_the_readme_proves_to_the_registry_whose_package_it_is() -> None:
    """The registry looks for this line in the README as PyPI shows it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert re.findall(r"<!-- mcp-name: (\S+) -->", readme) == [read("server.json")["name"]]


def test_the_bundle_fits_its_schema() -> None:
    bundle = read("manifest.json")
    schema = f"schemas/mcpb-manifest-v{bundle['manifest_version']}.schema.json"

    jsonschema.validate(bundle, json.loads(installed("@anthropic-ai/mcpb", schema).read_text("utf-8")))


def test_the_bundle_asks_for_the_python_that_the_project_asks_for() -> None:
    assert read("manifest.json")["compatibility"]["runtimes"]["python"] == PROJECT["requires-python"]
