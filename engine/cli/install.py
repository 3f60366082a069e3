"""`npu-gateway install`: put the MCP server into an AI client's configuration."""

import json
import os
import shutil
import subprocess

import click

from engine.cli.mcp_clients import FILE_CLIENTS, NAME, ConfigPlaces, FileClient, edit, server_entry
from engine.errors import EngineError

CLAUDE_CODE = "claude-code"


@click.command(epilog="Example:  npu-gateway install --client cursor --print")
@click.option("--client", required=True, type=click.Choice([CLAUDE_CODE, *FILE_CLIENTS]))
@click.option(
    "--print", "print_only", is_flag=True, help="Show what would be written, and where; change nothing."
)
@click.option("--remove", is_flag=True, help="Take the entry out again.")
def install(client: str, print_only: bool, remove: bool) -> None:
    """Add npu-gateway to the MCP servers of an AI client. A backup of its file stays beside it."""
    if client == CLAUDE_CODE:
        _claude_code(print_only=print_only, remove=remove)
    elif print_only:
        _show(FILE_CLIENTS[client])
    else:
        _edit_files(FILE_CLIENTS[client], remove=remove)


def _show(client: FileClient) -> None:
    for file in client.files(ConfigPlaces.this()):
        click.echo(f"# {file}")
    click.echo(json.dumps({client.servers_key: {NAME: client.entry(os.environ)}}, indent=2))


def _edit_files(client: FileClient, *, remove: bool) -> None:
    for file in client.files(ConfigPlaces.this()):
        done = edit(file, client.servers_key, None if remove else client.entry(os.environ))
        if done is None:
            click.echo(f"Nothing to do in {file}.")
            continue
        kept = f" (as it was: {done.backup.name})" if done.backup else ""
        click.echo(f"{'Removed from' if remove else 'Added to'} {done.file}{kept}")
    if not remove:
        click.echo(client.hint)


def _claude_code(*, print_only: bool, remove: bool) -> None:
    """Through Claude Code's own command: it rewrites its file while it runs, and would undo an edit."""
    removal = ["claude", "mcp", "remove", "--scope", "user", NAME]
    entry = server_entry(os.environ)
    variables = [
        word for name, value in entry.get("env", {}).items() for word in ("--env", f"{name}={value}")
    ]
    # --env takes every word up to the next option, so the name must not follow it.
    addition = [
        "claude",
        "mcp",
        "add",
        *variables,
        "--scope",
        "user",
        NAME,
        "--",
        entry["command"],
        *entry["args"],
    ]
    wanted = removal if remove else addition
    if print_only:
        click.echo(subprocess.list2cmdline(wanted))
        return
    if not remove:
        _run_claude(removal)  # `add` refuses a name it knows; that there was none to remove does not matter
    done = _run_claude(wanted)
    if done.returncode != 0:
        shown = subprocess.list2cmdline(wanted)
        raise EngineError(f"`{shown}` failed: {(done.stderr or done.stdout).strip()}")
    click.echo(done.stdout.strip())


def _run_claude(words: list[str]) -> subprocess.CompletedProcess[str]:
    program = shutil.which(words[0])
    if program is None:
        shown = subprocess.list2cmdline(words)
        raise EngineError(f"The command `claude` is not on the PATH. Where it is, run: {shown}")
    return subprocess.run(
        [program, *words[1:]], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
