"""Shows what the gateway and its workers log."""

import time
from pathlib import Path

import click

LOOK_SECONDS = 0.3


def log_files(folder: Path) -> list[Path]:
    """Those that hold something, without those of MCP processes."""
    found = (file for file in folder.glob("*.log") if not file.name.startswith("mcp-"))
    return sorted(file for file in found if file.stat().st_size)


def show_ends(folder: Path, lines: int) -> dict[Path, int]:
    """Returns how many bytes of each file there were."""
    read = {file: file.read_bytes() for file in log_files(folder)}
    for file, content in read.items():
        click.secho(f"== {file} ==", bold=True)
        click.echo("\n".join(content.decode("utf-8", errors="replace").splitlines()[-lines:]))
    return {file: len(content) for file, content in read.items()}


def follow_logs(folder: Path, shown: dict[Path, int]) -> None:
    """Never returns. shown: bytes of each file that were shown; one that is shorter now has started over."""
    last: Path | None = None
    while True:
        time.sleep(LOOK_SECONDS)
        for file in log_files(folder):
            with file.open("rb") as stream:  # open for a moment only: Windows renames no open file
                begun = shown.get(file, 0)
                stream.seek(begun if begun <= file.stat().st_size else 0)
                new = stream.read()
                shown[file] = stream.tell()
            if new:
                if file != last:
                    click.secho(f"== {file} ==", bold=True)
                    last = file
                click.echo(new.decode("utf-8", errors="replace"), nl=False)
