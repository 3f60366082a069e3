"""The commands about the running gateway, as somebody at a shell meets them."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from engine.daemon import Endpoint, ensure, find
from engine.settings import Home
from tests.engine.cli.commands import environment, npu_gateway
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


def test_a_refused_chat_is_one_line_without_a_traceback(home: Home) -> None:
    done = run(home, "chat", "busy")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "npu-gateway: Too many chats are waiting.\n"


def test_an_unknown_model_names_the_command_that_fetches_it(home: Home) -> None:
    done = run(home, "embed", "a", "--model", "nope")

    assert done.returncode == 1
    assert "npu-gateway pull nope" in done.stderr


@pytest.mark.parametrize("arguments", [["embed"], ["chat"], ["chat", "hi", "--temperature", "99"]])
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


def test_stop_ends_the_gateway_and_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    asyncio.run(ensure(home, command=command()))

    assert run(home, "stop").stdout == "The gateway has ended.\n"
    assert run(home, "stop").stdout == "No gateway was running.\n"
