"""`npu-gateway install`: other programs' configuration files, changed without losing anything."""

import json
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from engine.cli.mcp_clients import FILE_CLIENTS, ConfigPlaces, edit, server_entry
from engine.errors import BadInput
from tests.engine.cli.commands import npu_gateway

ENTRY = {"command": "/bin/npu-gateway", "args": ["mcp"]}


def edited(file: Path, text: str, entry: dict[str, Any] | None = ENTRY) -> str:
    """The file's text after the edit."""
    file.write_text(text, encoding="utf-8")
    edit(file, "mcpServers", entry)
    return file.read_text(encoding="utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def test_a_missing_file_is_created_with_its_folders(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "config.json"

    done = edit(file, "mcpServers", ENTRY)

    assert json.loads(file.read_text()) == {"mcpServers": {"npu-gateway": ENTRY}}
    assert done is not None
    assert done.backup is None


@pytest.mark.parametrize("text", ["", "{}", '{"mcpServers": {}}', "\ufeff{}"])
def test_an_empty_file_gets_the_entry(file: Path, text: str) -> None:
    assert json.loads(edited(file, text)) == {"mcpServers": {"npu-gateway": ENTRY}}


FOREIGN = """{
\t"theme": "dunkel, naïve 😀",
\t"mcpServers": {
\t\t"other": {
\t\t\t"command": "x"
\t\t}
\t},
\t"z": 1.0
}
"""
WITH_OURS = """{
\t"theme": "dunkel, naïve 😀",
\t"mcpServers": {
\t\t"other": {
\t\t\t"command": "x"
\t\t},
\t\t"npu-gateway": {
\t\t\t"command": "/bin/npu-gateway",
\t\t\t"args": [
\t\t\t\t"mcp"
\t\t\t]
\t\t}
\t},
\t"z": 1.0
}
"""


def test_everything_else_stays_as_it_was_in_its_order_and_indentation(file: Path) -> None:
    assert edited(file, FOREIGN) == WITH_OURS


def test_removing_gives_the_file_back(file: Path) -> None:
    assert edited(file, WITH_OURS, None) == FOREIGN


def test_an_old_entry_of_ours_is_replaced_in_its_place(file: Path) -> None:
    text = json.dumps({"mcpServers": {"npu-gateway": {"command": "old"}, "other": {}}})

    servers = json.loads(edited(file, text))["mcpServers"]

    assert list(servers.items()) == [("npu-gateway", ENTRY), ("other", {})]


def test_the_file_as_it_was_stays_beside_it(file: Path) -> None:
    file.write_text('{"a":1}')

    done = edit(file, "mcpServers", ENTRY)

    assert done is not None
    assert done.backup is not None
    assert done.backup.parent == file.parent
    assert done.backup.read_text() == '{"a":1}'


def test_nothing_is_written_when_nothing_changes(file: Path) -> None:
    edit(file, "mcpServers", ENTRY)

    assert edit(file, "mcpServers", ENTRY) is None
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{\n  // mine\n  "servers": {}\n}', "not plain JSON"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"mcpServers": []}', "'mcpServers' .* not an object"),
        ("[]", "does not hold a JSON object"),
        ('{"a":', "not plain JSON"),
    ],
)
def test_a_file_that_would_lose_something_is_left_alone(file: Path, text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        edited(file, text)

    assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_stays_a_link_and_permissions_stay(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    real.chmod(0o600)
    file.symlink_to(real)

    edit(file, "mcpServers", ENTRY)

    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert "npu-gateway" in real.read_text()


@pytest.mark.parametrize(
    ("client", "system", "expected"),
    [
        ("claude-desktop", "darwin", ["Library/Application Support/Claude/claude_desktop_config.json"]),
        ("claude-desktop", "linux", [".config/Claude/claude_desktop_config.json"]),
        ("claude-desktop", "win32", ["Roaming/Claude/claude_desktop_config.json"]),
        ("vscode", "darwin", ["Library/Application Support/Code/User/mcp.json"]),
        ("vscode", "linux", [".config/Code/User/mcp.json"]),
        ("vscode", "win32", ["Roaming/Code/User/mcp.json"]),
        ("cursor", "win32", [".cursor/mcp.json"]),
    ],
)
def test_each_client_has_its_place_on_each_system(
    tmp_path: Path, client: str, system: str, expected: list[str]
) -> None:
    machine = ConfigPlaces(system, tmp_path, {"APPDATA": str(tmp_path / "Roaming")})

    assert FILE_CLIENTS[client].files(machine) == tuple(tmp_path / path for path in expected)


@pytest.mark.parametrize("with_classic", [False, True])
def test_the_store_package_of_claude_desktop_reads_its_redirected_folder(
    tmp_path: Path, with_classic: bool
) -> None:
    package = tmp_path / "Local" / "Packages" / "Claude_pzs8sxrjxfjjc"
    package.mkdir(parents=True)
    classic = tmp_path / "Roaming" / "Claude"
    if with_classic:
        classic.mkdir(parents=True)
    variables = {"APPDATA": str(tmp_path / "Roaming"), "LOCALAPPDATA": str(tmp_path / "Local")}

    files = FILE_CLIENTS["claude-desktop"].files(ConfigPlaces("win32", tmp_path, variables))

    redirected = package / "LocalCache" / "Roaming" / "Claude"
    assert [file.parent for file in files] == [redirected, *([classic] if with_classic else [])]


def test_the_entry_starts_this_installation_by_absolute_path_in_the_same_home() -> None:
    entry = server_entry({"NPU_GATEWAY_HOME": "/data/gw"})

    assert Path(entry["command"]).is_absolute()
    assert Path(entry["command"]).exists()
    assert entry["args"][-1] == "mcp"
    assert entry["env"] == {"NPU_GATEWAY_HOME": "/data/gw"}
    assert "env" not in server_entry({})


def install(home: Path, *arguments: str, **variables: str) -> CompletedProcess[str]:
    """With `home` as the user's home folder."""
    folders = {"HOME": str(home), "USERPROFILE": str(home), "APPDATA": str(home), "LOCALAPPDATA": str(home)}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XDG_CONFIG_HOME", "NPU_GATEWAY_HOME")
    }
    return npu_gateway("install", *arguments, env=kept | folders | {"PYTHONUTF8": "1"} | variables)


def test_install_and_remove_at_the_shell(tmp_path: Path) -> None:
    file = tmp_path / ".cursor" / "mcp.json"

    added = install(tmp_path, "--client", "cursor")
    entry = json.loads(file.read_text())["mcpServers"]["npu-gateway"]
    removed = install(tmp_path, "--client", "cursor", "--remove")

    assert added.stdout == f"Added to {file}\nEnable the server in Cursor's settings under MCP.\n"
    assert entry["args"][-1] == "mcp"
    assert removed.stdout.startswith(f"Removed from {file} (as it was: mcp.json.")
    assert json.loads(file.read_text()) == {"mcpServers": {}}


def test_print_shows_the_entry_and_changes_nothing(tmp_path: Path) -> None:
    done = install(tmp_path, "--client", "vscode", "--print")

    place, _, shown = done.stdout.partition("\n")
    assert place.endswith("mcp.json")
    assert json.loads(shown)["servers"]["npu-gateway"]["type"] == "stdio"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for claude is a shell script")
def test_claude_code_is_told_through_its_own_command(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\necho done\n', encoding="utf-8")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    done = install(tmp_path, "--client", "claude-code", PATH=path, NPU_GATEWAY_HOME="/data/gw")

    assert (done.returncode, done.stdout) == (0, "done\n")
    removal, addition = (tmp_path / "calls").read_text().splitlines()
    assert removal == "mcp remove --scope user npu-gateway"
    assert addition.startswith("mcp add --env NPU_GATEWAY_HOME=/data/gw --scope user npu-gateway -- /")
    assert addition.endswith(" mcp")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for claude is a shell script")
def test_what_claude_code_says_need_not_be_text_of_this_system(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\nprintf 'za\\305\\202 \\201\\n'\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    done = install(tmp_path, "--client", "claude-code", PATH=path, PYTHONIOENCODING="utf-8")

    assert (done.returncode, done.stdout) == (0, "zał \ufffd\n")


def test_without_claude_code_the_user_gets_the_command_to_run(tmp_path: Path) -> None:
    done = install(tmp_path, "--client", "claude-code", PATH=str(tmp_path))

    assert done.returncode == 1
    assert "claude mcp" in done.stderr
    assert "Traceback" not in done.stderr
