"""`npu-gateway mcp`: MCP over standard input and output, or over HTTP."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from engine.remote.client import Locate
    from engine.settings import Home

FOR_PEOPLE = """\
This is the MCP server: a program such as Claude or VS Code starts it and speaks JSON with it.
To set one up:  npu-gateway install --client claude-code  (or claude-desktop, vscode, cursor)
To try the models yourself:  npu-gateway chat "Hello"
It waits for lines of JSON now; Ctrl-C ends it."""


@click.command(epilog="Example, for Claude Code:  claude mcp add --scope user npu-gateway -- npu-gateway mcp")
@click.option(
    "--http",
    "port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve http://127.0.0.1:PORT/mcp instead, for clients that cannot start a program.",
)
def mcp(port: int | None) -> None:
    """Serve embed, complete and health to an AI assistant over standard input and output.

    An MCP client starts this; it attaches to the running gateway or starts one.
    """
    if port is None:
        from engine.errors import BadInput
        from mcp_server.process import serve

        if sys.stdin is None or sys.stdout is None:  # closed by whoever started this
            raise BadInput("MCP needs standard input and output: have an MCP client start `npu-gateway mcp`.")
        if sys.stdin.isatty():
            click.echo(FOR_PEOPLE, err=True)
        serve(*_home_and_gateway())
    else:
        from engine.daemon import ensure
        from engine.settings import Settings
        from mcp_server.http import serve_http
        from mcp_server.log import log_to

        settings = Settings.load()
        log_to(settings.home)
        locate = partial(ensure, settings.home)
        serve_http(settings, locate, port, lambda url: click.echo(f"MCP over HTTP: {url}"))


def _home_and_gateway() -> "tuple[Home, Locate]":
    """A home that is set wrongly keeps no client waiting: the tools say what is wrong with it."""
    from engine.daemon import Endpoint, ensure
    from engine.errors import BadInput, GatewayUnreachable
    from engine.settings import Home

    try:
        home = Home.locate()
    except BadInput as error:
        reason = str(error)

        async def refuse() -> Endpoint:
            raise GatewayUnreachable(reason)

        return Home(Path(os.devnull)), refuse  # nothing can be written below it
    return home, partial(ensure, home)
