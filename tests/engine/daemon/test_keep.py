"""A home that is deleted under the gateway."""

import asyncio
import errno
import shutil
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.daemon import Claim, claim, keep, keeping_its_place
from engine.daemon.endpoint import Endpoint, endpoint_file, publish, read
from engine.daemon.lock import home_lock, is_held
from engine.errors import GatewayRunning
from engine.settings import Home

HOST = "127.0.0.1"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no file that is open")


@asynccontextmanager
async def deleted(home: Home) -> AsyncGenerator[tuple[Claim, asyncio.Event]]:
    """A gateway that looks often after its home, which goes."""
    closing = asyncio.Event()
    with claim(home, HOST, 0, auto_started=True) as claimed:
        async with keeping_its_place(claimed, closing, check_seconds=0.05):
            await asyncio.sleep(0)  # it has seen the lock it has
            shutil.rmtree(home.root)
            yield claimed, closing


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_gateway_is_found_again_and_no_second_one_starts(home: Home) -> None:
    async with deleted(home) as (claimed, closing):
        await until(lambda: read(home) is not None)

        assert read(home) == claimed.endpoint
        with pytest.raises(GatewayRunning), claim(home, HOST, 0, auto_started=True):
            pass
        assert not closing.is_set()
    assert read(home) is None
    assert not is_held(home_lock(home, "gateway"))


async def test_where_another_gateway_was_faster_this_one_leaves(home: Home) -> None:
    async with deleted(home) as (_, closing):
        with claim(home, HOST, 0, auto_started=True) as faster:
            async with asyncio.timeout(10):
                await closing.wait()
            assert read(home) == faster.endpoint


async def test_one_that_ends_is_not_published_again(home: Home) -> None:
    async with deleted(home) as (_, closing):
        closing.set()
    assert not endpoint_file(home).exists()


async def test_a_home_that_cannot_be_made_is_said_once_and_tried_again(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    async with deleted(home) as (claimed, _):
        home.root.write_text("a file in its place")
        await until(lambda: "cannot be made anew" in caplog.text)
        home.root.unlink()
        await until(lambda: read(home) is not None)

        assert read(home) == claimed.endpoint
    assert caplog.text.count("cannot be made anew") == 1


async def test_a_disk_that_takes_no_file_for_a_while_costs_no_place(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([OSError(errno.ENOSPC, "No space left on device")])

    def refusing(home: Home, endpoint: Endpoint) -> None:
        if error := next(refusals, None):
            raise error
        publish(home, endpoint)

    monkeypatch.setattr(keep, "publish", refusing)
    async with deleted(home) as (claimed, closing):
        await until(lambda: read(home) is not None)

        assert read(home) == claimed.endpoint
        assert not closing.is_set()
