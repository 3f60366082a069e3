"""What `serve` shows: where the gateway is, how to use it, and its models as they come up."""

import asyncio
import json
import math
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine import __version__
from engine.engine import Engine

REFRESH_SECONDS = 0.25
TELL_SECONDS = 5.0

MCP_ENTRY = {"mcpServers": {"npu-gateway": {"command": "npu-gateway", "args": ["mcp"]}}}


async def introduce(engine: Engine, url: str, *, is_open: bool) -> None:
    """Returns when every model has come up or failed. Cancel it to stop earlier."""
    console = Console(stderr=True)
    console.print(_usage(url, is_open=is_open), soft_wrap=True, highlight=False)
    if not console.is_terminal:
        told = _Told(console)
        await _settled(engine, lambda: told.see(engine))
        console.print(_models(engine))
        return
    with Live(console=console, get_renderable=lambda: _models(engine), auto_refresh=False) as live:
        await _settled(engine, live.refresh)


class _Told:
    """How far the downloads are, in a line now and then: a log is read later, and no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._at: dict[str, float] = {}

    def see(self, engine: Engine) -> None:
        now = time.monotonic()
        for model in engine.models():
            if model.detail and now - self._at.get(model.id, -math.inf) >= TELL_SECONDS:
                self._at[model.id] = now
                self._console.print(
                    f"{model.id}: {model.detail}", soft_wrap=True, highlight=False, markup=False
                )


async def _settled(engine: Engine, show: Callable[[], None]) -> None:
    while any(model.state == "loading" for model in engine.models()):
        show()
        await asyncio.sleep(REFRESH_SECONDS)
    show()


def _usage(url: str, *, is_open: bool) -> str:
    key = "anything" if is_open else "what `npu-gateway token` prints"
    return (
        f"npu-gateway {__version__} at {url} (Ctrl-C ends it)\n\n"
        f"  OpenAI clients: base_url {url}/v1, api_key {key}\n"
        f"  MCP clients:    {json.dumps(MCP_ENTRY)}\n"
    )


def _models(engine: Engine) -> Table:
    table = Table("model", "kind", "state", "device", "", box=None, pad_edge=False, header_style="dim")
    for model in engine.models():
        table.add_row(model.id, model.kind, model.state, model.device or "", Text(model.detail or ""))
    return table
