"""The commands about the running gateway, as somebody at a shell meets them."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import psutil
import pytest

from engine.cli.conversation import converse
from engine.daemon import Endpoint, ensure, find
from engine.remote.client import GatewayClient
from engine.settings import Home
from engine.types import ChatRequest
from tests.engine.cli.commands import RUN_MAIN, environment, npu_gateway, started
from tests.mcp_server.canned import command, dismiss


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The home of a canned gateway that runs."""
    home = Home(tmp_path_factory.mktemp("home"))
    asyncio.run(ensure(home, command=command()))
    yield home
    asyncio.run(dismiss(home))


def endpoint(home: Home) -> Endpoint:
    found = asyncio.run(find(home))
    assert found
    return found


def run(home: Home, *arguments: str) -> CompletedProcess[str]:
    return npu_gateway(*arguments, env=environment(home.root, COLUMNS="120"))


def test_status_shows_the_address_and_the_models(home: Home) -> None:
    done = run(home, "status")

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{endpoint(home).url}  ok, version 0.1.0, process {endpoint(home).pid}")
    assert lines[1] == "NPU: none (canned)"
    assert [line.split()[:4] for line in lines[-2:]] == [
        ["canned-embed", "embedding", "ready", "cpu"],
        ["canned-chat", "chat", "ready", "cpu"],
    ]


def test_status_as_json_has_the_address_and_the_health(home: Home) -> None:
    shown = json.loads(run(home, "status", "--json").stdout)

    assert shown["url"] == endpoint(home).url
    assert shown["auto_started"] is True
    assert shown["status"] == "ok"
    assert [model["id"] for model in shown["models"]] == ["canned-embed", "canned-chat"]


@pytest.mark.parametrize("arguments", [["status"], ["token"]])
def test_without_a_gateway_the_user_learns_how_to_start_one(tmp_path: Path, arguments: list[str]) -> None:
    done = run(Home(tmp_path), *arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "npu-gateway: No gateway is running. Start one with: npu-gateway serve\n"


def test_token_prints_the_token_alone(home: Home) -> None:
    assert run(home, "token").stdout == f"{endpoint(home).token}\n"


def test_embed_shows_the_beginning_of_each_vector(home: Home) -> None:
    done = run(home, "embed", "a [b] cat", "dog", "--query")

    assert done.stdout.splitlines()[1:] == [
        "a [b] cat  +0.0000 +1.0000 +0.0000 +0.0000 …",
        "dog        +0.0000 +1.0000 +0.0000 +0.0000 …",
    ]
    assert done.stderr == "canned-embed on npu, 6 tokens\n"


def test_embed_as_json_has_the_whole_vectors(home: Home) -> None:
    assert json.loads(run(home, "embed", "a", "--json").stdout) == {
        "model": "canned-embed",
        "vectors": [[1.0, 0.0, 0.0, 0.0]],
        "total_tokens": 3,
        "devices": ["npu"],
        "npu_emulated": True,
    }


def test_chat_prints_the_answer_alone_on_standard_output(home: Home) -> None:
    done = run(home, "chat", "hello 😀", "--system", "be brief")

    assert done.stdout == "system: be brief. user: hello 😀. \n"
    assert done.stderr.startswith("7 tokens, ")


def test_what_the_output_has_no_letter_for_is_replaced(home: Home) -> None:
    """A file or a pipe is cp1252 on Windows."""
    done = npu_gateway(
        "chat", "Łódź 😀", env=environment(home.root, PYTHONIOENCODING="cp1252:strict"), encoding="cp1252"
    )

    assert (done.returncode, done.stdout) == (0, "user: ?ód? ?. \n")


@pytest.mark.parametrize("arguments", [["chat"], ["chat", "-"]])
def test_what_is_piped_into_chat_is_the_prompt(home: Home, arguments: list[str]) -> None:
    done = npu_gateway(*arguments, env=environment(home.root), stdin="hello 😀\n")

    assert done.stdout == "user: hello 😀\n. \n"


def test_nothing_piped_into_chat_is_an_error(home: Home) -> None:
    done = npu_gateway("chat", env=environment(home.root), stdin="")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("npu-gateway: There is nothing to answer")


async def test_a_conversation_remembers_what_was_said(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["one", "", "busy", "two"])

    def typed(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    await converse(GatewayClient.of(await found(home)), ChatRequest(()))

    shown = capsys.readouterr()
    assert shown.out == "user: one. \nuser: one. assistant: user: one. . user: two. \n\n"
    assert "Too many chats are waiting." in shown.err


async def found(home: Home) -> Endpoint:
    endpoint = await find(home)
    assert endpoint
    return endpoint


def test_a_refused_chat_is_one_line_without_a_traceback(home: Home) -> None:
    done = run(home, "chat", "busy")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "npu-gateway: Too many chats are waiting.\n"


def test_an_unknown_model_names_the_command_that_fetches_it(home: Home) -> None:
    done = run(home, "embed", "a", "--model", "nope")

    assert done.returncode == 1
    assert "npu-gateway pull nope" in done.stderr


@pytest.mark.parametrize("arguments", [["embed"], ["chat", "hi", "--temperature", "99"]])
def test_wrong_usage_is_exit_status_2(home: Home, arguments: list[str]) -> None:
    assert run(home, *arguments).returncode == 2


def test_logs_shows_the_end_of_each_log(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "gateway.log").write_text("one\ntwo\nthree\n")

    done = run(Home(tmp_path), "logs", "-n", "2")

    assert done.stdout == f"== {tmp_path / 'log' / 'gateway.log'} ==\ntwo\nthree\n"


def test_logs_shows_what_the_workers_said(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "gateway.log").write_text("one\n")
    (tmp_path / "log" / "tiny-cpu.log").write_text("out of memory\n")
    (tmp_path / "log" / "silent-cpu.log").touch()
    (tmp_path / "log" / "mcp-12.log").write_text("of another process\n")

    done = run(Home(tmp_path), "logs")

    assert done.stdout == (
        f"== {tmp_path / 'log' / 'gateway.log'} ==\none\n"
        f"== {tmp_path / 'log' / 'tiny-cpu.log'} ==\nout of memory\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")
def test_a_gateway_that_hangs_is_told_from_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    gateway = psutil.Process(asyncio.run(ensure(home, command=command())).pid)
    gateway.suspend()
    try:
        done = run(home, "status")
    finally:
        gateway.resume()
        asyncio.run(dismiss(home))

    assert done.returncode == 1
    assert f"A gateway runs (process {gateway.pid}) but does not answer" in done.stderr


def test_help_says_whole_sentences(tmp_path: Path) -> None:
    summaries = npu_gateway("--help", env=environment(tmp_path, COLUMNS="80")).stdout.split("Commands:")[1]

    assert "..." not in summaries


def test_stop_ends_the_gateway_and_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    asyncio.run(ensure(home, command=command()))

    assert run(home, "stop").stdout == "The gateway has ended.\n"
    assert run(home, "stop").stdout == "No gateway was running.\n"


def test_logs_goes_on_with_what_comes(tmp_path: Path) -> None:
    log = tmp_path / "log" / "gateway.log"
    log.parent.mkdir()
    log.write_text("one\n")
    command = [sys.executable, "-c", RUN_MAIN, "logs", "-f"]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, encoding="utf-8"
    ) as following:
        assert following.stdout
        too_late = threading.Timer(30, following.kill)
        too_late.start()
        try:
            assert [following.stdout.readline() for _ in range(2)][1] == "one\n"
            with log.open("a") as more:
                more.write("two\n")
            assert [following.stdout.readline() for _ in range(2)][1] == "two\n"
        finally:
            too_late.cancel()
            following.kill()


def test_a_gateway_that_was_started_by_hand_is_restarted_by_hand_with_its_flags(tmp_path: Path) -> None:
    home = Home(tmp_path)
    port = str(free_port())
    with started("serve", "--port", port, "--device", "cpu", env=environment(home.root)):
        before = asyncio.run(up(home))
        done = run(home, "restart")
    after = asyncio.run(up(home))
    run(home, "stop")

    assert (done.returncode, done.stderr) == (0, "")
    assert after.instance != before.instance
    assert (after.url, after.auto_started) == (before.url, False)
    assert after.flags == (f"--port={port}", "--device=cpu")


def test_with_a_configuration_that_cannot_be_used_the_gateway_goes_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    asyncio.run(ensure(home, command=command()))
    home.config_file.write_text("port = 0.5")

    done = run(home, "restart")

    assert (done.returncode, done.stdout) == (1, "")
    assert "port must be a whole number" in done.stderr
    asyncio.run(dismiss(home))


async def up(home: Home) -> Endpoint:
    async with asyncio.timeout(30):
        while (endpoint := await find(home)) is None:
            await asyncio.sleep(0.05)
    return endpoint


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
