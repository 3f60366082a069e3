"""The lock, the endpoint file, and finding, starting and stopping the gateway."""

import asyncio
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.daemon import API, Endpoint, claim, ensure, find, stop
from engine.daemon.endpoint import endpoint_file, published, read
from engine.daemon.listen import another_port
from engine.daemon.lock import home_lock
from engine.errors import GatewayRunning, GatewayUnreachable, PortTaken
from engine.settings import Home
from tests.mcp_server.canned import command, dismiss, starts

HOST = "127.0.0.1"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    yield (home := Home(tmp_path))
    await dismiss(home)


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


def disguise(home: Home, endpoint: Endpoint, **changes: Any) -> None:
    """Publish a running gateway as another version's."""
    for file in home.run.glob("endpoint-*.json"):
        file.unlink()
    shown = replace(endpoint, **changes)
    endpoint_file(home, shown.api).write_text(json.dumps(asdict(shown)))


def test_the_endpoint_file_tells_address_token_and_version_while_the_gateway_lives(home: Home) -> None:
    with claim(home, HOST, 0, auto_started=True) as claimed:
        port = claimed.sockets[0].getsockname()[1]
        shown = json.loads(endpoint_file(home).read_text())

        assert Endpoint(**shown | {"flags": tuple(shown["flags"])}) == claimed.endpoint
        assert claimed.endpoint == Endpoint(
            url=f"http://127.0.0.1:{port}",
            token=claimed.endpoint.token,
            pid=os.getpid(),
            version="0.1.0",
            api=API,
            instance=claimed.endpoint.instance,
            auto_started=True,
        )
        assert len(claimed.endpoint.token) >= 43
    assert read(home) is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"url": "http://127.0.0.1:99999"}, id="no port"),
        pytest.param({"url": "http://[::1"}, id="broken address"),
        pytest.param({"url": "file:///etc/passwd"}, id="another protocol"),
        pytest.param({"url": 5}, id="a number for the address"),
        pytest.param({"token": "töken"}, id="token not in ASCII"),
        pytest.param({"token": "a\nb"}, id="token of two lines"),
        pytest.param({"token": None}, id="no token"),
        pytest.param({"version": 3}, id="a number for the version"),
        pytest.param({"url": "https://127.0.0.1:1", "certificate": "PEM"}, id="broken certificate"),
    ],
)
def test_a_damaged_endpoint_file_shows_no_gateway(home: Home, damage: dict[str, Any]) -> None:
    with claim(home, HOST, 0, auto_started=True) as claimed:
        endpoint_file(home).write_text(json.dumps(asdict(claimed.endpoint) | damage))

        assert read(home) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 100_000])
def test_an_endpoint_file_that_holds_none_shows_no_gateway(home: Home, text: str) -> None:
    with claim(home, HOST, 0, auto_started=True):
        endpoint_file(home).write_text(text)

        assert read(home) is None


def test_an_endpoint_file_from_before_certificates_is_still_read(home: Home) -> None:
    with claim(home, HOST, 0, auto_started=True) as claimed:
        shown = json.loads(endpoint_file(home).read_text())
        del shown["certificate"]
        endpoint_file(home).write_text(json.dumps(shown))

        assert read(home) == claimed.endpoint


@pytest.mark.skipif(sys.platform == "win32", reason="Windows protects the user's profile folder instead")
def test_only_this_user_may_read_the_endpoint_file(home: Home) -> None:
    with claim(home, HOST, 0, auto_started=True):
        mode = stat.S_IMODE(endpoint_file(home).stat().st_mode)

    assert mode == 0o600


def test_an_endpoint_file_that_somebody_keeps_open_does_not_keep_the_gateway_from_ending(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unlink = os.unlink

    def refused(path: Any, **options: Any) -> None:
        if Path(path) == endpoint_file(home):
            raise PermissionError(13, "somebody reads it")
        unlink(path, **options)

    with claim(home, HOST, 0, auto_started=True):
        monkeypatch.setattr(os, "unlink", refused)

    assert [record.levelname for record in caplog.records if "stays behind" in record.message] == ["WARNING"]


def test_a_second_gateway_is_refused_with_the_address_of_the_first(home: Home) -> None:
    with (
        claim(home, HOST, 0, auto_started=False) as first,
        pytest.raises(GatewayRunning, match=f"{first.endpoint.url} .process {os.getpid()}") as refusal,
        claim(home, HOST, 0, auto_started=False),
    ):
        pass

    assert refusal.value.url == first.endpoint.url


def test_the_refused_gateway_leaves_the_endpoint_of_the_first_alone(home: Home) -> None:
    with claim(home, HOST, 0, auto_started=False) as first:
        with pytest.raises(GatewayRunning), claim(home, HOST, 0, auto_started=False):
            pass

        assert read(home) == first.endpoint


def test_gateways_of_two_homes_live_side_by_side(tmp_path: Path) -> None:
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(claim(Home(tmp_path / name), HOST, 0, auto_started=True))
            for name in ("one", "two")
        )

        assert one.endpoint.url != two.endpoint.url


def test_a_gateway_started_by_hand_says_who_has_its_port(home: Home) -> None:
    with (
        taken_port() as port,
        pytest.raises(PortTaken, match=rf"Port {port} .*serve --port {another_port(port)}") as refusal,
        claim(home, HOST, port, auto_started=False),
    ):
        pass

    assert sys.platform == "darwin" or f"process {os.getpid()}" in str(refusal.value)


def test_an_auto_started_gateway_takes_a_free_port_when_its_own_is_taken(home: Home) -> None:
    with taken_port() as port, claim(home, HOST, port, auto_started=True) as claimed:
        assert not claimed.endpoint.url.endswith(f":{port}")


def test_a_gateway_on_all_addresses_is_reached_over_loopback(home: Home) -> None:
    with claim(home, "0.0.0.0", 0, auto_started=False) as claimed:
        assert claimed.endpoint.url.startswith("http://127.0.0.1:")


async def test_nothing_is_found_in_an_empty_home(home: Home) -> None:
    assert await find(home) is None


async def test_a_gateway_that_answers_is_found(home: Home) -> None:
    started = await ensure(home, command=command())

    assert await find(home) == started


async def test_the_endpoint_of_a_dead_gateway_is_not_found(home: Home) -> None:
    with claim(home, HOST, 0, auto_started=True) as claimed:
        dead = claimed.endpoint

    with published(home, dead):
        assert await find(home) is None


async def test_where_nobody_holds_the_lock_nobody_is_asked(home: Home) -> None:
    """To connect where nobody listens any more takes two seconds on Windows."""
    with claim(home, HOST, 0, auto_started=True) as claimed:
        dead = claimed.endpoint

    with published(home, dead), socket.create_server((HOST, int(dead.url.rpartition(":")[2]))) as listener:
        listener.setblocking(False)
        assert await find(home) is None
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_another_gateway_on_its_port_is_not_taken_for_the_dead_one(home: Home, tmp_path: Path) -> None:
    other = await ensure(home, command=command())
    home_of_the_dead = Home(tmp_path / "dead")

    with home_lock(home_of_the_dead, "gateway"), published(home_of_the_dead, replace(other, instance="gone")):
        assert await find(home_of_the_dead) is None


async def test_proxy_variables_do_not_hide_the_gateway(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)

    started = await ensure(home, command=command())

    assert await find(home) == started


async def test_many_clients_at_once_start_one_gateway(home: Home) -> None:
    found = await asyncio.gather(*(ensure(home, command=command()) for _ in range(4)))

    assert starts(home) == [found[0].instance]
    assert found == [found[0]] * 4


async def test_a_killed_gateway_is_replaced_by_one_new_one(home: Home) -> None:
    first = await ensure(home, command=command())
    psutil.Process(first.pid).kill()

    found = await asyncio.gather(*(ensure(home, command=command()) for _ in range(3)))

    assert starts(home) == [first.instance, found[0].instance]


async def test_a_started_gateway_does_not_keep_our_output_open(home: Home) -> None:
    """With our pipes in its hands, whoever waits for our end would wait for the gateway's."""
    script = (
        "import asyncio, sys; from engine.daemon import ensure; from engine.settings import Home; "
        f"asyncio.run(ensure(Home.locate(), command={command()!r}))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"NPU_GATEWAY_HOME": str(home.root)},
    )

    output = await asyncio.wait_for(process.communicate(), timeout=30)

    assert output == (b"", b"")
    assert await find(home) is not None


async def test_a_gateway_that_cannot_start_is_reported_with_its_last_words(home: Home) -> None:
    broken = (sys.executable, "-c", "raise SystemExit('no such device')")

    with pytest.raises(GatewayUnreachable, match=r"no such device.*gateway-boot\.log"):
        await ensure(home, command=broken)


async def test_waiting_for_a_gateway_ends_at_the_deadline(home: Home) -> None:
    """Exit status 0 means that another process has the lock; here that one never answers."""
    with pytest.raises(GatewayUnreachable, match="within 0 s"):
        await ensure(home, deadline_seconds=0.3, command=(sys.executable, "-c", ""))


async def test_an_older_gateway_that_a_client_started_gives_way(home: Home) -> None:
    old = await ensure(home, command=command())
    disguise(home, old, version="0.0.1")

    new = await ensure(home, command=command())

    assert starts(home) == [old.instance, new.instance]


@pytest.mark.parametrize("disguised_as", [{"version": "0.0.1", "auto_started": False}, {"version": "99.0"}])
async def test_a_gateway_started_by_hand_or_newer_is_used_as_it_is(
    home: Home, disguised_as: dict[str, Any]
) -> None:
    running = await ensure(home, command=command())
    disguise(home, running, **disguised_as)

    assert (await ensure(home, command=command())).instance == running.instance


async def test_a_gateway_with_an_older_api_gives_way_whatever_lies_beside_its_file(home: Home) -> None:
    old = await ensure(home, command=command())
    disguise(home, old, api=API - 1)
    for copy in ("endpoint-v.json", "endpoint-v1 - Copy.json", "endpoint-v²json.json"):
        (home.run / copy).write_text("{}")

    new = await ensure(home, command=command())

    assert starts(home) == [old.instance, new.instance]


async def test_a_gateway_with_a_newer_api_is_left_alone_and_named(home: Home) -> None:
    newer = await ensure(home, command=command())
    disguise(home, newer, api=API + 1, version="99.0")

    with pytest.raises(GatewayUnreachable, match=rf"{newer.url} is newer .version 99\.0"):
        await ensure(home, command=command())

    disguise(home, newer)
    assert await find(home) == newer


async def test_stop_waits_until_the_lock_is_free(home: Home) -> None:
    await ensure(home, command=command())

    assert await stop(home)
    with claim(home, HOST, 0, auto_started=True):
        pass


async def test_stop_says_that_there_was_nothing_to_stop(home: Home) -> None:
    assert not await stop(home)


async def test_a_gateway_that_does_not_answer_is_not_killed_but_named(home: Home) -> None:
    with (
        claim(home, HOST, 0, auto_started=True),
        pytest.raises(GatewayUnreachable, match=f"process {os.getpid()}"),
    ):
        await stop(home, deadline_seconds=0.2)
