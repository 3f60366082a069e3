"""`npu-gateway service`: have the operating system start the gateway at login."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click

from engine.cli.mcp_clients import ConfigPlaces
from engine.cli.service_managers import Command, Service, service_for
from engine.errors import EngineError
from engine.files import make_private, remove_file
from engine.settings import Home

TAKEOVER_SECONDS = 5.0


@click.group(epilog="Example:  npu-gateway service install --print")
def service() -> None:
    """Have this computer start the gateway when you log in (systemd, launchd or Task Scheduler)."""


@service.command(epilog="Example:  npu-gateway service install")
@click.option("--print", "print_only", is_flag=True, help="Show the file, and where; change nothing.")
def install(print_only: bool) -> None:
    """Start the gateway now and at each login. A gateway that runs gives way to it."""
    wanted = _service()
    if print_only:
        click.echo(f"# {wanted.file}\n{_shown(wanted)}")
        return
    _failure(wanted.end)  # managers refuse a name they know; that there was none does not matter
    _end_gateway()
    wanted.file.parent.mkdir(parents=True, exist_ok=True)
    wanted.file.write_bytes(wanted.content)
    if failure := _failure(wanted.start):
        remove_file(wanted.file)
        raise EngineError(failure)
    click.echo(f"Installed {wanted.file}. The gateway is starting: `npu-gateway status` shows it.")
    if wanted.hint:
        click.echo(wanted.hint)


@service.command(epilog="Example:  npu-gateway service remove")
def remove() -> None:
    """End the gateway and start it at login no more."""
    installed = _service()
    if not installed.file.exists():
        click.echo("There is no service to remove.")
        return
    failure = _failure(installed.end)
    _end_gateway()
    remove_file(installed.file)
    click.echo(f"Removed {installed.file}.")
    if failure:  # it was taken out by other means, or is still registered: the manager's words tell
        raise EngineError(failure)


@service.command(epilog="Example:  npu-gateway service status")
def status() -> None:
    """Show what the operating system says about the service. Exit status 1 if there is none."""
    installed = _service()
    if not installed.file.exists():
        raise EngineError("The gateway is no service here. Make it one: npu-gateway service install")
    done = _run(installed.status)
    click.echo((done.stdout or done.stderr).strip())


@service.command(hidden=True)
@click.option("--home", required=True, type=click.Path(path_type=Path))
def run(home: Path) -> None:
    """What the service runs: `serve`, once no other gateway holds this home.

    Waiting here costs nothing; being started again and again would.
    """
    from engine.cli import cli
    from engine.daemon.lock import home_lock, is_held
    from engine.daemon.start import boot_log

    os.environ["NPU_GATEWAY_HOME"] = str(home)
    log = boot_log(Home(home))
    make_private(log.parent)
    # A Windows program without a console has no standard streams at all.
    sys.stdout = sys.stderr = log.open("a", encoding="utf-8", buffering=1)
    lock = home_lock(Home(home), "gateway")
    if is_held(lock):
        click.echo("Another gateway runs; this one takes over when that has ended.")
    while is_held(lock):
        time.sleep(TAKEOVER_SECONDS)
    cli.main(["serve"], standalone_mode=False)


def _service() -> Service:
    return service_for(ConfigPlaces.this(), Home(Home.locate().root.absolute()))


def _shown(service: Service) -> str:
    """The file's text; Windows wants its in UTF-16."""
    return service.content.decode("utf-16" if service.file.suffix == ".xml" else "utf-8")


def _end_gateway() -> None:
    """Raises GatewayUnreachable."""
    from engine.daemon import stop

    asyncio.run(stop(Home.locate()))


def _failure(commands: Iterable[Command]) -> str | None:
    """Run the commands until one fails; which one, and why."""
    for command in commands:
        done = _run(command)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            return f"`{subprocess.list2cmdline(command)}` failed: {said}{_next_step(said)}"
    return None


def _next_step(said: str) -> str:
    """Over ssh or in a container there is often no session for services of a user."""
    if "connect to bus" not in said:
        return ""
    return (
        "\nThis login has no session for services. Run `loginctl enable-linger`, log out and in again, and "
        "repeat this; or start the gateway yourself with `npu-gateway serve`."
    )


def _run(command: Command) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",  # schtasks.exe writes in the console's code page
            check=False,
        )
    except FileNotFoundError as error:
        raise EngineError(
            f"There is no {command[0]} here, so this computer cannot run the gateway as a service. "
            "Clients start it when they need it."
        ) from error
