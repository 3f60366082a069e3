"""`npu-gateway mcp`: MCP over standard input and output, or over HTTP."""

import click


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
    from functools import partial

    from engine.daemon import ensure
    from engine.settings import Home, Settings

    home = Home.locate()
    locate = partial(ensure, home)
    if port is None:
        from mcp_server.process import serve

        serve(home, locate)
    else:
        from mcp_server.http import serve_http
        from mcp_server.process import log_to

        settings = Settings.load()
        log_to(home)
        serve_http(settings, locate, port, lambda url: click.echo(f"MCP over HTTP: {url}"))
