"""Commands about the running gateway. Imports wait until a command runs, so that --help is quick."""

import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from engine.settings import Home

if TYPE_CHECKING:
    from engine.daemon import Endpoint
    from engine.remote.client import GatewayClient, RemoteEmbeddings
    from engine.types import Health, ModelState

NO_GATEWAY = "No gateway is running. Start one with: npu-gateway serve"
MUTE_GATEWAY = (
    "A gateway runs (process {pid}) but does not answer: it hangs, or is very busy. "
    "`npu-gateway stop` waits for it; if that does not help, end the process."
)


@click.command(epilog="Example:  npu-gateway status --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Show the running gateway: address, models, devices, memory. Exit status 1 if none runs."""
    endpoint = _running()
    health = asyncio.run(_health(endpoint))
    if as_json:
        about = {"url": endpoint.url, "pid": endpoint.pid, "auto_started": endpoint.auto_started}
        click.echo(json.dumps(about | asdict(health), indent=2))
    else:
        _print_status(endpoint, health)


@click.command(epilog="Example:  npu-gateway stop")
def stop() -> None:
    """End the running gateway; requests in progress may finish first."""
    from engine.daemon import stop as stop_gateway

    stopped = asyncio.run(stop_gateway(Home.locate()))
    click.echo("The gateway has ended." if stopped else "No gateway was running.")


@click.command(epilog="Example:  npu-gateway load phi-3-mini-4k-instruct")
@click.argument("model_id", metavar="ID")
def load(model_id: str) -> None:
    """Load the model ID into memory, before a request has to wait for it; starts a gateway if none runs."""

    async def ask() -> "ModelState":
        async with _gateway() as gateway:
            return await gateway.load(model_id)

    click.echo(f"{model_id} is {asyncio.run(ask())}.")


@click.command(epilog="Example:  npu-gateway unload phi-3-mini-4k-instruct")
@click.argument("model_id", metavar="ID")
def unload(model_id: str) -> None:
    """Give the memory of the model ID back, after the requests that run; the next one loads it again."""
    endpoint = _running()

    async def ask() -> "ModelState":
        async with _client(endpoint) as gateway:
            return await gateway.unload(model_id)

    if asyncio.run(ask()) == "unloaded":
        click.echo(f"{model_id} is unloaded.")
    else:
        click.echo(f"{model_id} is at work; it is unloaded when its running requests have ended.")


@click.command(epilog="Example:  npu-gateway restart")
def restart() -> None:
    """End the running gateway and start one in the background, with the configuration as it is now.

    One that was started by hand keeps its kind and its flags.
    """
    from engine.daemon import ensure, find
    from engine.daemon import stop as stop_gateway
    from engine.daemon.start import GATEWAY_COMMAND, SERVE
    from engine.settings import Settings

    Settings.load().keys()  # what is wrong with the configuration is known while a gateway still runs
    home = Home.locate()

    async def replace() -> "Endpoint":
        before = await find(home)
        by_hand = before is not None and not before.auto_started
        await stop_gateway(home)
        return await ensure(home, command=(*SERVE, *before.flags) if before and by_hand else GATEWAY_COMMAND)

    click.echo(f"A new gateway runs at {asyncio.run(replace()).url}")


@click.command(epilog="Example:  npu-gateway logs -n 200")
@click.option("-n", "--lines", default=50, show_default=True, help="Lines to show of each file.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on, until Ctrl-C.")
def logs(lines: int, follow: bool) -> None:
    """Show the end of the log files of the gateway and of its workers."""
    from engine.cli.logs import follow_logs, log_files, show_ends

    folder = Home.locate().log
    if not log_files(folder):
        click.echo(f"Nothing has been logged in {folder} yet.")
    shown = show_ends(folder, lines)
    if follow:
        follow_logs(folder, shown)


@click.command(
    epilog='Example:  curl -H "Authorization: Bearer $(npu-gateway token)" http://127.0.0.1:8000/health'
)
def token() -> None:
    """Print the running gateway's token; OpenAI clients send it as their API key."""
    click.echo(_running().token)


@click.command(epilog='Example:  npu-gateway embed "a cat" "a dog"')
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--model", help="Embedding model; the default one if left out.")
@click.option("--query", is_flag=True, help="The texts are search questions, not documents.")
@click.option("--json", "as_json", is_flag=True, help="Print the vectors, as one JSON object.")
def embed(texts: tuple[str, ...], model: str | None, query: bool, as_json: bool) -> None:
    """Turn texts into vectors; starts a gateway if none runs."""
    from engine.types import EmbedRequest

    request = EmbedRequest(texts, model=model, input_type="query" if query else "document")

    async def ask() -> "RemoteEmbeddings":
        async with _gateway() as gateway:
            return await gateway.embed(request)

    reply = asyncio.run(ask())
    if as_json:
        click.echo(json.dumps(asdict(reply)))
    else:
        _print_embeddings(texts, reply)


@click.command(epilog='Example:  npu-gateway chat "What is the capital of France?"')
@click.argument("prompt", required=False)
@click.option("--model", help="Chat model; the default one if left out.")
@click.option("--system", help="Instructions for the model.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Most tokens to generate.",
)
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True)
def chat(
    prompt: str | None, model: str | None, system: str | None, max_tokens: int, temperature: float
) -> None:
    """Stream an answer to PROMPT; starts a gateway if none runs. Speed goes to standard error.

    Without PROMPT it is a conversation; with - , or when text is piped in, that text is the prompt.
    """
    from engine.cli.conversation import ask_once, converse
    from engine.types import ChatRequest, Message, Sampling

    before = (Message("system", system),) if system else ()
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    asked = ChatRequest(before, model=model, sampling=sampling)
    if prompt is None and sys.stdin.isatty():
        asyncio.run(converse(_gateway(), asked))
    else:
        asyncio.run(ask_once(_gateway(), asked, sys.stdin.read() if prompt in (None, "-") else str(prompt)))


def _gateway() -> "GatewayClient":
    """A client of the running gateway, or of one started now."""
    from functools import partial

    from engine.daemon import ensure
    from engine.remote.client import GatewayClient

    return GatewayClient(partial(ensure, Home.locate()))


def _running() -> "Endpoint":
    from engine.daemon import find
    from engine.daemon.find import silent
    from engine.errors import GatewayUnreachable

    home = Home.locate()
    endpoint = asyncio.run(find(home))
    if endpoint is None:
        mute = silent(home)
        raise GatewayUnreachable(MUTE_GATEWAY.format(pid=mute.pid) if mute else NO_GATEWAY)
    return endpoint


async def _health(endpoint: "Endpoint") -> "Health":
    async with _client(endpoint) as gateway:
        return await gateway.health()


def _client(endpoint: "Endpoint") -> "GatewayClient":
    """A client of this gateway that starts no other."""
    from engine.remote.client import GatewayClient

    return GatewayClient.of(endpoint)


def _print_status(endpoint: "Endpoint", health: "Health") -> None:
    started = "started by a client" if endpoint.auto_started else "started by hand"
    npu = health.npu.name if health.npu.available else f"none ({health.npu.reason})"
    click.echo(
        f"{endpoint.url}  {health.status}, version {health.version}, process {endpoint.pid}, {started}"
    )
    click.echo(f"NPU: {npu}{' (emulated)' if health.npu.emulated else ''}")
    click.echo(f"Memory: {health.memory.rss_bytes / 2**20:,.0f} MiB, up {health.uptime_seconds:,.0f} s\n")
    rows = (
        (
            m.id,
            m.kind,
            m.state,
            m.device or "",
            f"{m.rss_bytes / 2**20:,.0f}",
            f"{m.requests:,}",
            f"{m.tokens:,}",
            f"{m.tokens_per_second:.1f}",
            m.detail or "",
        )
        for m in health.models
    )
    header = ("model", "kind", "state", "device", "MiB", "requests", "tokens", "tokens/s", "detail")
    _print_table(header, rows)


def _print_embeddings(texts: tuple[str, ...], reply: "RemoteEmbeddings") -> None:
    rows = (
        (
            text if len(text) <= 40 else f"{text[:39]}…",
            " ".join(f"{number:+.4f}" for number in vector[:6]) + " …",
        )
        for text, vector in zip(texts, reply.vectors, strict=True)
    )
    _print_table(("text", f"{len(reply.vectors[0])} numbers"), rows)
    click.secho(
        f"{reply.model} on {', '.join(reply.devices)}, {reply.total_tokens} tokens", dim=True, err=True
    )


def _print_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, title in enumerate(header):
        table.add_column(title, overflow="fold", no_wrap=number == 0)  # ids are to be copied
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a user's words may look like markup
    Console().print(table)
