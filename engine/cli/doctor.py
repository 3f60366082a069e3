"""`npu-gateway doctor`: what is right and wrong on this machine, and what to do about it."""

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from engine import __version__

if TYPE_CHECKING:
    from rich.table import Table

    from engine.doctor import Finding

_STYLES = MappingProxyType({"ok": "green", "warn": "yellow", "fail": "bold red"})


@click.command(epilog="Example:  npu-gateway doctor --quick")
@click.option("--quick", is_flag=True, help="Do not read every byte of the models to compare the hashes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for a bug report.")
def doctor(quick: bool, as_json: bool) -> None:
    """Check Python, runtimes, NPU, models, folder and port, and say what to do.

    Nothing leaves the machine. Exit status 1 if something fails; warnings do not count.
    """
    from rich.console import Console

    from engine.doctor import examine

    findings = examine(verify=not quick)
    if as_json:
        about = {"version": __version__, "platform": platform.platform()}
        click.echo(json.dumps(about | {"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        Console().print(_table(findings))
    if any(finding.state == "fail" for finding in findings):
        sys.exit(1)


def _table(findings: Sequence["Finding"]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("finding", overflow="fold")
    for finding in findings:
        what = Text(finding.what)
        if finding.what_to_do:
            what.append(f"\n{finding.what_to_do}", style="cyan")
        table.add_row(Text(finding.state, style=_STYLES[finding.state]), finding.name, what)
    return table
