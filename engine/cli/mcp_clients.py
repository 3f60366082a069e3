"""Where MCP clients keep their list of servers, and how an entry gets in and out without losing anything."""

import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import BadInput
from engine.files import move

NAME = "npu-gateway"
JsonObject = dict[str, Any]


@dataclass(frozen=True)
class ConfigPlaces:
    """What decides where configuration files are. system: as `sys.platform`."""

    system: str
    home: Path
    variables: Mapping[str, str]

    @classmethod
    def this(cls) -> "ConfigPlaces":
        return cls(sys.platform, Path.home(), os.environ)

    @property
    def app_data(self) -> Path:
        """The folder in which programs keep a folder each for their settings."""
        if self.system == "win32":
            return Path(self.variables.get("APPDATA") or self.home / "AppData" / "Roaming")
        if self.system == "darwin":
            return self.home / "Library" / "Application Support"
        return Path(self.variables.get("XDG_CONFIG_HOME") or self.home / ".config")


@dataclass(frozen=True)
class FileClient:
    """A client that is configured by JSON files.

    servers_key: the member that holds the servers. hint: what the user does next. typed: entries name their
    transport.
    """

    servers_key: str
    files: Callable[[ConfigPlaces], tuple[Path, ...]]
    hint: str
    typed: bool = False

    def entry(self, variables: Mapping[str, str]) -> JsonObject:
        return ({"type": "stdio"} if self.typed else {}) | server_entry(variables)


def _claude_desktop(machine: ConfigPlaces) -> tuple[Path, ...]:
    """On Windows the Store package reads a redirected folder, the classic program the usual one."""
    folders = [machine.app_data / "Claude"]
    if machine.system == "win32":
        local = Path(machine.variables.get("LOCALAPPDATA") or machine.home / "AppData" / "Local")
        packages = sorted((local / "Packages").glob("Claude_*"))
        redirected = [package / "LocalCache" / "Roaming" / "Claude" for package in packages]
        folders = [*redirected, *(folder for folder in folders if folder.exists() or not redirected)]
    return tuple(folder / "claude_desktop_config.json" for folder in folders)


FILE_CLIENTS: Mapping[str, FileClient] = {
    "claude-desktop": FileClient("mcpServers", _claude_desktop, "Quit Claude Desktop and start it again."),
    "vscode": FileClient(
        "servers",
        lambda machine: (machine.app_data / "Code" / "User" / "mcp.json",),
        "VS Code asks whether to trust the server when it first starts it.",
        typed=True,
    ),
    "cursor": FileClient(
        "mcpServers",
        lambda machine: (machine.home / ".cursor" / "mcp.json",),
        "Enable the server in Cursor's settings under MCP.",
    ),
}


def server_entry(variables: Mapping[str, str]) -> JsonObject:
    """How to start this installation's MCP server: by absolute path, because clients have their own PATH."""
    suffix = ".exe" if sys.platform == "win32" else ""
    script = Path(sysconfig.get_path("scripts")) / f"npu-gateway{suffix}"
    command = [str(script)] if script.exists() else [sys.executable, "-P", "-m", "engine.cli"]
    entry: JsonObject = {"command": command[0], "args": [*command[1:], "mcp"]}
    if home := variables.get("NPU_GATEWAY_HOME"):
        entry["env"] = {"NPU_GATEWAY_HOME": home}
    return entry


@dataclass(frozen=True)
class Edit:
    """A file that was changed. backup: what it was before; None if there was no file."""

    file: Path
    backup: Path | None


def edit(file: Path, servers_key: str, entry: JsonObject | None) -> Edit | None:
    """Put our entry into the file, or take it out (None); returns None if there was nothing to change.

    Raises BadInput, and changes nothing, when the file cannot be rewritten without loss.
    """
    file = file.resolve()  # a link into somebody's dotfiles stays a link
    before = file.read_text(encoding="utf-8-sig") if file.exists() else ""
    root = _parsed(file, before)
    servers = root.get(servers_key, {})
    if not isinstance(servers, dict):
        raise BadInput(f"{servers_key!r} in {file} is not an object; correct that first.")
    if servers.get(NAME) == entry:
        return None
    kept = {name: server for name, server in servers.items() if name != NAME}
    root[servers_key] = kept if entry is None else servers | {NAME: entry}
    backup = _backup(file)
    _write(file, json.dumps(root, indent=_indent(before), ensure_ascii=False) + "\n")
    return Edit(file, backup)


def _parsed(file: Path, text: str) -> JsonObject:
    try:
        root = json.loads(text or "{}", object_pairs_hook=_without_duplicates)
    except ValueError as error:
        raise BadInput(
            f"{file} is not plain JSON ({error}); rewriting it would lose its comments. Put this in by hand "
            "(`npu-gateway install --print` shows it)."
        ) from error
    if not isinstance(root, dict):
        raise BadInput(f"{file} does not hold a JSON object; correct that first.")
    return root


def _without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return members


def _indent(text: str) -> int | str:
    """The file's own: the white space before its first member."""
    for line in text.splitlines()[1:]:
        if space := line[: len(line) - len(line.lstrip())]:
            return space
    return 2


def _backup(file: Path) -> Path | None:
    """A copy beside the file, if there is a file yet."""
    if not file.exists():
        return None
    backup = file.with_name(f"{file.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
    shutil.copy2(file, backup)
    return backup


def _write(file: Path, text: str) -> None:
    """All or nothing, with the permissions that the file had."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    if file.exists():
        shutil.copymode(file, draft)
    move(draft, file)
