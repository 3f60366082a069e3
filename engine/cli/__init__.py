"""The `npu-gateway` command: each subcommand's module is loaded only when that subcommand runs."""

import importlib
import io
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType

import click

from engine import __version__
from engine.errors import EngineError

OWN_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "bench": "engine.cli.bench:bench",
        "chat": "engine.cli.gateway:chat",
        "doctor": "engine.cli.doctor:doctor",
        "embed": "engine.cli.gateway:embed",
        "import": "engine.cli.models:import_model",
        "install": "engine.cli.install:install",
        "list": "engine.cli.models:list_models",
        "load": "engine.cli.gateway:load",
        "logs": "engine.cli.gateway:logs",
        "pull": "engine.cli.models:pull",
        "restart": "engine.cli.gateway:restart",
        "rm": "engine.cli.models:rm",
        "service": "engine.cli.service:service",
        "status": "engine.cli.gateway:status",
        "stop": "engine.cli.gateway:stop",
        "token": "engine.cli.gateway:token",
        "unload": "engine.cli.gateway:unload",
    }
)


class LazyGroup(click.Group):
    """Our own commands, and those that the front doors register as entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*OWN_COMMANDS, *entry_points(group="npu_gateway.commands").names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OWN_COMMANDS:
            module, _, name = OWN_COMMANDS[cmd_name].partition(":")
            command = getattr(importlib.import_module(module), name)
        else:
            found = entry_points(group="npu_gateway.commands", name=cmd_name)
            command = next((entry.load() for entry in found), None)
        assert command is None or isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Whole sentences; click would cut them to one line."""
        rows = [
            (name, command.get_short_help_str(limit=200))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="npu-gateway")
def cli() -> None:
    """Embeddings and chat on this machine, for AI assistants: over MCP and the OpenAI API."""


def main() -> None:
    """Exit status 0: done; 1: it could not be done, with the reason; 2: wrong usage."""
    _write_what_can_be_written()
    try:
        require_runtimes(sys.platform, platform.machine())
        cli()
    except EngineError as error:
        click.secho(f"npu-gateway: {error}", fg="red", err=True)
        sys.exit(1)


def require_runtimes(system: str, machine: str) -> None:
    """system, machine: as sys.platform and platform.machine() name them. Raises EngineError."""
    if (system, machine) == ("darwin", "x86_64"):
        raise EngineError(
            "On a Mac this needs Apple silicon and a Python built for it; onnxruntime has no build for Intel."
        )


def _write_what_can_be_written() -> None:
    """Output that is no terminal is cp1252 on Windows, which has no emoji and few of the world's letters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
