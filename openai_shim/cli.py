"""`npu-gateway serve`: the gateway as a process."""

import click


@click.command(epilog="Example:  npu-gateway serve --port 8080 --chat phi-3-mini-4k-instruct")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: 8000]")
@click.option("--embed", metavar="ID", help="Default embedding model.  [default: bge-small-en-v1.5]")
@click.option("--chat", metavar="ID", help="Default chat model.  [default: the best one installed]")
@click.option(
    "--device", type=click.Choice(["auto", "npu", "cpu"]), help="Where models run.  [default: auto]"
)
@click.option("--auto", is_flag=True, hidden=True, help="Started by a client, not by a person.")
def serve(
    host: str | None, port: int | None, embed: str | None, chat: str | None, device: str | None, auto: bool
) -> None:
    """Run the gateway until Ctrl-C.

    The first run fetches the embedded models; the gateway answers meanwhile and says how far they are.
    """
    from engine.settings import Settings
    from openai_shim.process import run

    given = {"host": host, "port": port, "embed": embed, "chat": chat, "device": device}
    flags = tuple(f"--{name}={value}" for name, value in given.items() if value is not None)
    run(Settings.load(**given), auto_started=auto, flags=flags)
