"""Shows a Progress on stderr: bars on a terminal, else one line for each step."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from engine.models.progress import Progress


@contextmanager
def shown_progress() -> Iterator[Progress]:
    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as bars:
            yield _drawn(bars)
    else:
        yield _written()


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _drawn(bars: Bars) -> Progress:
    tasks: dict[str, TaskID] = {}

    def show(doing: str, done: int, total: int | None) -> None:
        if doing not in tasks:
            for earlier in tasks.values():
                bars.stop_task(earlier)
            tasks[doing] = bars.add_task(doing, total=total)
        bars.update(tasks[doing], completed=done, total=total)

    return show


def _written() -> Progress:
    written: set[str] = set()

    def show(doing: str, done: int, total: int | None) -> None:
        if doing not in written:
            written.add(doing)
            click.echo(doing, err=True)

    return show
