"""`npu-gateway mcp`: MCP over standard input and output."""

import click


@click.command(epilog="Example, for Claude Code:  claude mcp add --scope user npu-gateway -- npu-gateway mcp")
def mcp() -> None:
    """Serve embed, complete and health to an AI assistant over standard input and output.

    An MCP client starts this; it attaches to the running gateway or starts one.
    """
    from functools import partial

    from engine.daemon import ensure
    from engine.settings import Home
    from mcp_server.process import serve

    home = Home.locate()
    serve(home, partial(ensure, home))
