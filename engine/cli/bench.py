"""`npu-gateway bench`: how fast this machine is."""

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from engine.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from engine.bench import BenchReport
    from engine.types import Device


@click.command(epilog="Example:  npu-gateway bench --quick --json")
@click.option("--device", type=click.Choice(["cpu", "npu"]), help="Embed on this device only; default: each.")
@click.option("--quick", is_flag=True, help="Seconds instead of minutes; the numbers scatter more.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(device: "Device | None", quick: bool, as_json: bool) -> None:
    """Measure embeddings per device and length, and the default chat model.

    Loads the models itself, so no gateway may run meanwhile. Nothing is fetched.
    """
    from engine.bench import bench as run_bench

    def report(doing: str) -> None:
        click.echo(doing, err=True)

    result = asyncio.run(run_bench(Settings.load(), device=device, quick=quick, report=report))
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
    else:
        _print(result)


def _print(result: "BenchReport") -> None:
    from rich.console import Console
    from rich.filesize import decimal

    machine = result.machine
    console = Console(highlight=False)
    load = "" if machine.load_average is None else f", load average {machine.load_average:.1f}"
    console.print(f"{result.date}{', quick' if result.quick else ''}", markup=False)
    console.print(
        f"{machine.processor}, {machine.cores} cores, {decimal(machine.memory_bytes)}, "
        f"{machine.system}, NPU: {machine.npu or 'none'}{load}",
        markup=False,
    )
    console.print(
        ", ".join(f"{name} {found}" for name, found in result.versions.items()) + "\n", markup=False
    )
    for table in (_lengths(result), _corpus(result), _chat(result), _resident(result)):
        console.print(table)
        console.print()
    for note in result.notes:
        console.print(note, markup=False)


def _lengths(result: "BenchReport") -> "Table":
    table = _table(
        result.embedding_model, "tokens", "one text: p50 ms", "p95 ms", "many: texts/s", "tokens/s"
    )
    for speed in result.lengths:
        table.add_row(
            _device(speed.device, emulated=speed.emulated),
            str(speed.tokens),
            f"{speed.single_p50_ms:.1f}",
            f"{speed.single_p95_ms:.1f}",
            f"{speed.texts_per_second:,.0f}",
            f"{speed.tokens_per_second:,.0f}",
        )
    return table


def _corpus(result: "BenchReport") -> "Table":
    table = _table("docstrings of all lengths", "texts", "tokens each", "texts/s", "tokens/s")
    for speed in result.corpus:
        table.add_row(
            _device(", ".join(speed.devices), emulated=speed.emulated),
            f"{speed.texts:,}",
            f"{speed.tokens / speed.texts:.0f}",
            f"{speed.texts_per_second:,.0f}",
            f"{speed.tokens_per_second:,.0f}",
        )
    return table


def _chat(result: "BenchReport") -> "Table":
    chat = result.chat
    table = _table(
        chat.model, "first token ms", f"prefill tokens/s ({chat.prompt_tokens})", "decode tokens/s"
    )
    table.add_row(
        chat.device,
        f"{chat.first_token_ms:.0f}",
        f"{chat.prefill_tokens_per_second:,.0f}",
        f"{chat.decode_tokens_per_second:.1f}",
    )
    return table


def _resident(result: "BenchReport") -> "Table":
    from rich.filesize import decimal

    table = _table("resident memory", "")
    for part in result.resident:
        table.add_row(part.process, decimal(part.rss_bytes))
    return table


def _device(name: str, *, emulated: bool) -> str:
    return f"{name} (emulated)" if emulated else name


def _table(first: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(first, box=None, pad_edge=False, header_style="dim")
    for heading in others:
        table.add_column(heading, justify="right")
    return table
