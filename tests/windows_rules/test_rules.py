"""Each rule is in force, here and in the Pythons that tests start: `pytest -p tests.windows_rules`."""

import asyncio
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from tests.windows_rules.rules import WORLD

if WORLD not in os.environ:
    pytest.skip("needs -p tests.windows_rules", allow_module_level=True)


def child(code: str, *arguments: str) -> str:
    """What a Python process prints that runs this."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    return done.stdout.decode(errors="replace").strip()


def product(code: str) -> dict[str, Any]:
    """The variables of a module of the product that consists of this code."""
    module = ModuleType("engine.made_up")
    exec(code, vars(module))
    return vars(module)


REFUSED = """
import socket, time
with socket.create_server(("127.0.0.1", 0)) as listener: address = listener.getsockname()
started = time.perf_counter()
try: socket.create_connection(address)
except ConnectionRefusedError: print(time.perf_counter() - started > 1.9)
"""


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_a_refusal_comes_late_to_an_event_loop() -> None:
    started = time.perf_counter()

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", closed_port())

    assert time.perf_counter() - started > 1.9


def test_a_refusal_comes_after_the_patience_of_a_blocking_socket() -> None:
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", closed_port()), timeout=0.05)


def test_a_refusal_comes_late_in_a_child() -> None:
    assert child(REFUSED) == "True"


async def test_clocks_tick_every_64th_of_a_second() -> None:
    now, loop_now = time.monotonic(), asyncio.get_running_loop().time()

    assert (now / 0.015625 % 1, loop_now / 0.015625 % 1) == (0, 0)


def test_clocks_tick_coarsely_in_a_child() -> None:
    assert child("import time; print(time.monotonic() / 0.015625 % 1)") == "0.0"


def test_the_interpreter_is_a_child_of_what_is_started() -> None:
    with subprocess.Popen([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1) as started:
        assert started.stdout
        assert int(started.stdout.readline()) != started.pid


def test_the_interpreter_ends_with_its_launcher() -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1) as launcher:
        assert launcher.stdout
        interpreter = psutil.Process(int(launcher.stdout.readline()))
        launcher.kill()

        assert psutil.wait_procs([interpreter], timeout=10)[1] == []


def test_a_child_starts_children_through_the_launcher() -> None:
    assert child("import sys; print(ascii(sys.executable))") == ascii(sys.executable)


OPEN = "import os, sys\ntry: os.unlink(sys.argv[1])\nexcept PermissionError as error: print(error.winerror)"


@pytest.mark.parametrize("change", [os.unlink, os.remove, lambda file: os.rename(file, f"{file}-2")])
def test_an_open_file_stays_where_it_is(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "file"
    with file.open("wb"), pytest.raises(PermissionError) as refusal:
        change(file)

    assert vars(refusal.value)["winerror"] == 32


def test_what_another_process_has_open_stays_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb"):
        assert child(OPEN, str(file)) == "32"


def test_a_file_that_a_reader_has_open_is_not_replaced(tmp_path: Path) -> None:
    file, draft = tmp_path / "file", tmp_path / "draft"
    draft.touch()
    with file.open("wb"), pytest.raises(PermissionError):
        draft.replace(file)


def test_a_folder_with_an_open_file_is_not_renamed(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb"), pytest.raises(PermissionError):
        tmp_path.rename(tmp_path.with_name("other"))


@pytest.mark.parametrize("change", [os.rmdir, lambda folder: os.rename(folder, f"{folder}-2")])
def test_a_new_folder_stays_where_it_is_for_a_moment(tmp_path: Path, change: Any) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    with pytest.raises(PermissionError) as refusal:
        change(folder)

    assert vars(refusal.value)["winerror"] == 5


def test_nothing_is_renamed_onto_what_is_there(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).touch()

    with pytest.raises(FileExistsError):
        (tmp_path / "one").rename(tmp_path / "two")


@pytest.mark.parametrize("name", ["contexts", "log", "models", "out", "run"])
def test_no_folder_of_a_home_is_private_by_its_mode(tmp_path: Path, name: str) -> None:
    with pytest.raises(PermissionError):
        (tmp_path / name).mkdir(mode=0o700)


def test_a_port_is_taken_from_who_listens_on_all_addresses() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as everywhere,
        socket.create_server(("127.0.0.1", everywhere.getsockname()[1])) as thief,
        socket.create_connection(thief.getsockname()),
    ):
        thief.settimeout(5)
        thief.accept()[0].close()


def test_a_port_is_not_taken_from_who_listens_on_the_same_address() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(OSError, match="rules"),
    ):
        socket.create_server(listener.getsockname())


def test_a_range_of_ports_is_nobodys() -> None:
    with pytest.raises(PermissionError):
        socket.create_server(("127.0.0.1", 50_001))


@pytest.mark.parametrize("name", ["fork", "geteuid", "setsid", "sched_getaffinity"])
def test_the_product_finds_no_posix_function_in_os(name: str) -> None:
    assert product(f"import os\nfound = hasattr(os, {name!r})")["found"] is False
    assert hasattr(os, name)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGHUP", "SIGUSR1", "pthread_kill"])
def test_the_product_finds_no_posix_signal(name: str) -> None:
    assert product(f"import signal\nfound = hasattr(signal, {name!r})")["found"] is False
    assert hasattr(signal, name)


def test_the_product_finds_no_posix_signal_in_a_child() -> None:
    code = (
        "__name__ = 'engine.x'\nimport signal\nprint(hasattr(signal, 'SIGHUP'), hasattr(signal, 'SIGTERM'))"
    )
    assert child(code) == "False True"


def test_the_product_hides_no_file_by_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o644)

    product(f"import os\nos.chmod({str(file)!r}, 0o600)")

    assert file.stat().st_mode & 0o777 == 0o644


def test_files_are_read_as_cp1252(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("ł".encode())

    assert file.read_text() == "\xc5\u201a"


def test_what_children_print_is_read_as_cp1252() -> None:
    done = subprocess.run([sys.executable, "-c", "print('é')"], stdout=-1, text=True, check=True)

    assert done.stdout == "é\n"
    assert child("print('é')") == b"\xe9".decode(errors="replace")


def test_streams_files_and_locale_of_a_child_are_cp1252() -> None:
    code = "import sys, locale; print(sys.stdout.encoding, locale.getpreferredencoding(), open(0).encoding)"

    assert child(code) == "cp1252 cp1252 cp1252"


def test_paths_hold_letters_of_another_alphabet(tmp_path: Path) -> None:
    assert "Åø ł" in str(tmp_path)
    assert "Åø ł" in sys.executable


SANIC = """
import socket, sanic.server.runners as runners
with socket.create_server(("127.0.0.1", 0)) as listener:
    with socket.fromshare(listener.share(0)) as shared:
        print(runners.OS_IS_WINDOWS, shared.getsockname() == listener.getsockname(), shared != listener)
"""


def test_sanic_serves_a_duplicate_of_its_socket_here() -> None:
    assert vars(importlib.import_module("sanic.server.runners"))["OS_IS_WINDOWS"]


def test_sanic_serves_a_duplicate_of_its_socket_in_a_child() -> None:
    assert child(SANIC) == "True True True"


FAILED_ACCEPT = """
import asyncio, socket

def accept(self): raise OSError(22, "The specified network name is no longer available")

async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    socket.socket.accept = accept
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.set())
    failed = asyncio.Event()
    await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=listener)
    with socket.create_connection(listener.getsockname()):
        await asyncio.wait_for(failed.wait(), 5)
        await asyncio.sleep(0)
    print(listener.fileno())

asyncio.run(main())
"""


def test_the_default_loop_closes_its_listener_when_an_accept_fails() -> None:
    assert child(FAILED_ACCEPT) == "-1"
