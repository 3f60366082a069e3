"""`npu-gateway service`: what each operating system is told, and what becomes of the file."""

import configparser
import os
import plistlib
import shlex
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import pytest

from engine.cli.mcp_clients import ConfigPlaces
from engine.cli.service_managers import Service, service_for
from engine.daemon import claim
from engine.daemon.start import boot_log
from engine.settings import Home
from tests.engine.cli.commands import environment, npu_gateway, started
from tests.mcp_server.wire import until

HOME = Home(Path('/home/mü $HOME 100% "x"/gateway'))
RUN = ["-P", "-m", "engine.cli", "service", "run", "--home", str(HOME.root)]
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


def described(system: str) -> Service:
    variables = {"USERDOMAIN": "DESK", "USERNAME": "mü & co"}
    return service_for(ConfigPlaces(system, Path("/home/me"), variables), HOME)


def unit(service: Service) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(service.content.decode())
    return parser


def test_the_systemd_unit_starts_the_gateway_at_login_and_after_a_crash() -> None:
    service = described("linux")

    sections = {name: dict(section) for name, section in unit(service).items() if name != "DEFAULT"}
    del sections["Service"]["ExecStart"]
    assert sections == {
        "Unit": {"Description": "Local embeddings and chat for AI assistants"},
        "Service": {"Type": "exec", "Restart": "on-failure", "RestartSec": "10"},
        "Install": {"WantedBy": "default.target"},
    }
    assert service.file == Path("/home/me/.config/systemd/user/npu-gateway.service")


def test_systemd_reads_every_word_of_the_command_back() -> None:
    """systemd unquotes as a shell does, and knows two more special characters, which double to lose that."""
    words = shlex.split(unit(described("linux"))["Service"]["ExecStart"])

    assert [word.replace("%%", "%").replace("$$", "$") for word in words] == [sys.executable, *RUN]


def test_the_launch_agent_starts_the_gateway_at_login_and_after_a_crash() -> None:
    service = described("darwin")

    assert plistlib.loads(service.content) == {
        "Label": "io.github.npu-gateway",
        "ProgramArguments": [sys.executable, *RUN],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ProcessType": "Interactive",
    }
    assert service.file == Path("/home/me/Library/LaunchAgents/io.github.npu-gateway.plist")


def flat(element: ElementTree.Element, path: str = "") -> list[tuple[str, str | None]]:
    """The leaves in document order, by their paths."""
    here = f"{path}/{element.tag.removeprefix(TASK)}"
    if len(element) == 0:
        return [(here, element.text)]
    return [leaf for child in element for leaf in flat(child, here)]


def test_the_scheduled_task_is_this_users_and_has_no_limits_that_suit_batch_jobs() -> None:
    """Task Scheduler refuses some elements out of the order in which it exports them: that of this list."""
    service = described("win32")

    task = ElementTree.fromstring(service.content)
    *leaves, (arguments_path, arguments) = flat(task)
    assert leaves == [
        ("/Task/RegistrationInfo/Description", "Local embeddings and chat for AI assistants"),
        ("/Task/RegistrationInfo/URI", "\\npu-gateway"),
        ("/Task/Triggers/LogonTrigger/Enabled", "true"),
        ("/Task/Triggers/LogonTrigger/UserId", "DESK\\mü & co"),
        ("/Task/Principals/Principal/UserId", "DESK\\mü & co"),
        ("/Task/Principals/Principal/LogonType", "InteractiveToken"),
        ("/Task/Principals/Principal/RunLevel", "LeastPrivilege"),
        ("/Task/Settings/MultipleInstancesPolicy", "IgnoreNew"),
        ("/Task/Settings/DisallowStartIfOnBatteries", "false"),
        ("/Task/Settings/StopIfGoingOnBatteries", "false"),
        ("/Task/Settings/ExecutionTimeLimit", "PT0S"),
        ("/Task/Settings/Priority", "5"),
        ("/Task/Settings/RestartOnFailure/Interval", "PT1M"),
        ("/Task/Settings/RestartOnFailure/Count", "3"),
        ("/Task/Actions/Exec/Command", str(Path(sys.executable).with_name("pythonw.exe"))),
    ]
    assert arguments_path == "/Task/Actions/Exec/Arguments"
    assert arguments is not None
    assert arguments.startswith("-P -m engine.cli service run --home ")
    assert (task.tag, task.get("version")) == (f"{TASK}Task", "1.2")
    principal, actions = task.find(f"*/{TASK}Principal"), task.find(f"{TASK}Actions")
    assert principal is not None
    assert actions is not None
    assert actions.get("Context") == principal.get("id")


def test_the_scheduled_task_is_in_the_encoding_that_schtasks_reads() -> None:
    """Without a byte-order mark schtasks takes a file for ANSI, whatever its declaration says."""
    content = described("win32").content

    assert content[:2] in (b"\xff\xfe", b"\xfe\xff")
    assert content.decode("utf-16").startswith("<?xml version='1.0' encoding='utf-16'?>")


def test_schtasks_gets_the_file_that_is_written() -> None:
    service = described("win32")

    assert service.start[0] == (
        "schtasks.exe",
        "/Create",
        "/TN",
        "npu-gateway",
        "/XML",
        str(service.file),
        "/F",
    )


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    """A Linux machine whose systemctl notes its arguments and fails if a file named `broken` exists."""
    if sys.platform != "linux":
        pytest.skip("the commands run this system's own service manager")
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n'
        f"if [ -e {tmp_path}/broken ]; then cat {tmp_path}/broken >&2; exit 1; fi\necho active\n"
    )
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return environment(tmp_path / "home", XDG_CONFIG_HOME=str(tmp_path), PATH=path)


def unit_file(tmp_path: Path) -> Path:
    return tmp_path / "systemd" / "user" / "npu-gateway.service"


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_print_changes_nothing(env: Mapping[str, str], tmp_path: Path) -> None:
    done = npu_gateway("service", "install", "--print", env=env)

    assert done.stdout.startswith(f"# {unit_file(tmp_path)}\n[Unit]\n")
    assert not unit_file(tmp_path).exists()
    assert not (tmp_path / "calls").exists()


def test_install_writes_the_unit_and_starts_it(env: Mapping[str, str], tmp_path: Path) -> None:
    done = npu_gateway("service", "install", env=env)

    assert done.returncode == 0
    assert str(tmp_path / "home") in unit_file(tmp_path).read_text()
    assert calls(tmp_path) == [
        "--user disable --now npu-gateway.service",
        "--user daemon-reload",
        "--user enable --now npu-gateway.service",
    ]


def test_an_installation_that_the_manager_refuses_leaves_nothing(
    env: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "broken").write_text("no bus\n")

    done = npu_gateway("service", "install", env=env)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "npu-gateway: `systemctl --user daemon-reload` failed: no bus\n"
    assert not unit_file(tmp_path).exists()


def test_without_a_session_bus_the_user_learns_how_to_get_one(env: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("Failed to connect to bus: No medium found\n")

    assert "loginctl enable-linger" in npu_gateway("service", "install", env=env).stderr


def test_remove_takes_out_what_install_put_in(env: Mapping[str, str], tmp_path: Path) -> None:
    npu_gateway("service", "install", env=env)
    done = npu_gateway("service", "remove", env=env)
    again = npu_gateway("service", "remove", env=env)

    assert (done.returncode, done.stdout) == (0, f"Removed {unit_file(tmp_path)}.\n")
    assert calls(tmp_path)[-1] == "--user disable --now npu-gateway.service"
    assert not unit_file(tmp_path).exists()
    assert (again.returncode, again.stdout) == (0, "There is no service to remove.\n")


def test_status_is_the_managers_own(env: Mapping[str, str], tmp_path: Path) -> None:
    without = npu_gateway("service", "status", env=env)
    npu_gateway("service", "install", env=env)
    done = npu_gateway("service", "status", env=env)

    assert without.returncode == 1
    assert "npu-gateway service install" in without.stderr
    assert (done.returncode, done.stdout) == (0, "active\n")


def test_a_computer_without_a_service_manager_says_so(env: Mapping[str, str], tmp_path: Path) -> None:
    done = npu_gateway("service", "install", env={**env, "PATH": str(tmp_path)})

    assert done.returncode == 1
    assert "There is no systemctl here" in done.stderr
    assert not unit_file(tmp_path).exists()


async def test_the_service_waits_for_the_gateway_that_runs_and_then_takes_over(tmp_path: Path) -> None:
    """Here it cannot listen when its turn comes; the reason stands in the log, for it has no other place."""
    home, log = Home(tmp_path), boot_log(Home(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as gateway:
        home.config_file.write_text(f"port = {listener.getsockname()[1]}\n")
        gateway.enter_context(claim(home, "127.0.0.1", 0, auto_started=True))
        with started("service", "run", "--home", str(tmp_path), env=environment(tmp_path)) as process:
            await until(lambda: log.exists() and "takes over when" in log.read_text())
            gateway.close()
            assert process.wait(timeout=60) == 1

    assert "cannot be used" in log.read_text()
    assert "already runs" not in log.read_text()
