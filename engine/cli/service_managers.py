"""How each operating system starts a program when its user logs in, without administrator's rights."""

import os
import plistlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import list2cmdline
from xml.etree import ElementTree

from engine.cli.mcp_clients import ConfigPlaces
from engine.settings import Home

NAME = "npu-gateway"
LABEL = "io.github.npu-gateway"
DESCRIPTION = "Local embeddings and chat for AI assistants"
RESTART_SECONDS = 10

Command = tuple[str, ...]


@dataclass(frozen=True)
class Service:
    """A service manager's view of the gateway: the file that describes it, and the manager's own commands.

    start: register the file and start the gateway. end: undo that; the gateway itself may go on.
    hint: what the user may want to know next.
    """

    file: Path
    content: bytes
    start: tuple[Command, ...]
    end: tuple[Command, ...]
    status: Command
    hint: str = ""


def service_for(machine: ConfigPlaces, home: Home) -> Service:
    """The gateway of `home` as a service of this user."""
    command = _command(machine, home)
    match machine.system:
        case "win32":
            return _scheduled_task(machine, command, home)
        case "darwin":
            return _launch_agent(machine, command)
        case _:
            return _systemd_unit(machine, command)


def _command(machine: ConfigPlaces, home: Home) -> Command:
    """This installation's own interpreter; on Windows the one that opens no console window."""
    python = Path(sys.executable)
    if machine.system == "win32":
        python = python.with_name("pythonw.exe")
    # The home as an argument, because scheduled tasks have no way to set a variable.
    return str(python), "-P", "-m", "engine.cli", "service", "run", "--home", str(home.root)


def _systemd_unit(machine: ConfigPlaces, command: Command) -> Service:
    unit = f"{NAME}.service"
    systemctl = ("systemctl", "--user")
    return Service(
        file=machine.app_data / "systemd" / "user" / unit,
        content=_unit_text(command).encode(),
        start=((*systemctl, "daemon-reload"), (*systemctl, "enable", "--now", unit)),
        end=((*systemctl, "disable", "--now", unit),),
        status=(*systemctl, "status", "--no-pager", unit),
        hint="To have it run while you are logged out too: loginctl enable-linger",
    )


def _unit_text(command: Command) -> str:
    return (
        f"[Unit]\nDescription={DESCRIPTION}\n\n"
        f"[Service]\nType=exec\nExecStart={' '.join(map(_systemd_quoted, command))}\n"
        f"Restart=on-failure\nRestartSec={RESTART_SECONDS}\n\n"
        "[Install]\nWantedBy=default.target\n"
    )


def _systemd_quoted(word: str) -> str:
    """So that systemd reads the word back: it knows escapes, %specifiers and $variables."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _launch_agent(machine: ConfigPlaces, command: Command) -> Service:
    file = machine.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    domain = f"gui/{_user_id()}"
    job = {
        "Label": LABEL,
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},  # after a crash, not after `npu-gateway stop`
        "ThrottleInterval": RESTART_SECONDS,
        "ProcessType": "Interactive",  # the default lets macOS slow it down: people wait for its answers
    }
    return Service(
        file=file,
        content=plistlib.dumps(job, sort_keys=False),
        start=(("launchctl", "bootstrap", domain, str(file)),),
        end=(("launchctl", "bootout", f"{domain}/{LABEL}"),),
        status=("launchctl", "print", f"{domain}/{LABEL}"),
    )


def _user_id() -> int:
    if sys.platform == "win32":
        return 0
    return os.getuid()


def _scheduled_task(machine: ConfigPlaces, command: Command, home: Home) -> Service:
    file = home.run / "service-task.xml"
    return Service(
        file=file,
        content=_task_xml(command, _account(machine.variables)),
        start=(
            ("schtasks.exe", "/Create", "/TN", NAME, "/XML", str(file), "/F"),
            ("schtasks.exe", "/Run", "/TN", NAME),
        ),
        end=(("schtasks.exe", "/Delete", "/TN", NAME, "/F"),),
        status=("schtasks.exe", "/Query", "/TN", NAME, "/V", "/FO", "LIST"),
    )


def _account(variables: Mapping[str, str]) -> str:
    """With an account, a logon trigger needs no administrator: it means this user only."""
    return "\\".join(filter(None, (variables.get("USERDOMAIN"), variables.get("USERNAME"))))


def _task_xml(command: Command, account: str) -> bytes:
    """In the order of elements of the schema that Task Scheduler exports, version 1.2 (Windows Vista)."""
    task = ElementTree.Element(
        "Task", {"version": "1.2", "xmlns": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
    )
    _add(task, "RegistrationInfo", {"Description": DESCRIPTION, "URI": f"\\{NAME}"})
    _add(_add(task, "Triggers"), "LogonTrigger", {"Enabled": "true", "UserId": account})
    principal = {"UserId": account, "LogonType": "InteractiveToken", "RunLevel": "LeastPrivilege"}
    _add(_add(task, "Principals"), "Principal", principal).set("id", "Author")
    settings = _add(
        task,
        "Settings",
        {
            "MultipleInstancesPolicy": "IgnoreNew",
            "DisallowStartIfOnBatteries": "false",
            "StopIfGoingOnBatteries": "false",
            "ExecutionTimeLimit": "PT0S",  # none; the default ends it after three days
            "Priority": "5",  # normal; the default, 7, is below normal, for the disk too
        },
    )
    _add(settings, "RestartOnFailure", {"Interval": "PT1M", "Count": "3"})
    python, *arguments = command
    actions = _add(task, "Actions")
    actions.set("Context", "Author")
    _add(actions, "Exec", {"Command": python, "Arguments": list2cmdline(arguments)})
    ElementTree.indent(task)
    written: bytes = ElementTree.tostring(task, encoding="utf-16", xml_declaration=True)
    return written


def _add(
    parent: ElementTree.Element, tag: str, texts: Mapping[str, str] | None = None
) -> ElementTree.Element:
    """A new child of `parent` with its own children in the order given."""
    element = ElementTree.SubElement(parent, tag)
    for name, text in (texts or {}).items():
        ElementTree.SubElement(element, name).text = text
    return element
