"""What keeps one worker running, whatever the worker does."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.workers import supervisor as supervisor_module
from engine.workers import watch
from engine.workers.supervisor import Supervisor, WorkerUnavailable

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 60


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import nothing from the folder they are started in, these ones neither."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hanging shows after a second, not after ten."""
    monkeypatch.setattr(supervisor_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(supervisor_module, "STILL_LOADING_SECONDS", 1.0)
    monkeypatch.setattr(watch, "STILL_SECONDS", 1.0)
    monkeypatch.setattr(supervisor_module, "Debt", lambda allowed, still=1.0: watch.Debt(allowed, still))


@asynccontextmanager
async def supervised(
    log_file: Path, module: str = "tests.engine.workers.odd_worker"
) -> AsyncGenerator[
    tuple[Supervisor, asyncio.Queue[object], Callable[[Callable[[], bool]], Awaitable[None]]]
]:
    """The supervisor, what its worker says, and a wait until something is true after a change."""
    said: asyncio.Queue[object] = asyncio.Queue()
    changed = asyncio.Event()
    worker = Supervisor(
        "the worker",
        module,
        "the options",
        log_file=log_file,
        on_message=said.put_nowait,
        on_change=changed.set,
    )

    async def until(condition: Callable[[], bool]) -> None:
        while not condition():
            await changed.wait()
            changed.clear()

    async with asyncio.timeout(PATIENCE_SECONDS):
        worker.start()
        try:
            yield worker, said, until
        finally:
            await worker.stop()


async def test_a_worker_that_becomes_ready_while_it_is_stopped_stays_stopped(tmp_path: Path) -> None:
    async with supervised(tmp_path / "log", "tests.engine.workers.late_worker") as (worker, _, _):
        await worker.stop()

        assert (worker.state, worker.pid) == ("unloaded", None)


async def test_a_worker_gets_its_options_and_its_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "fine")
    async with supervised(tmp_path / "log") as (worker, said, _):
        await worker.ready()
        worker.send("hello")

        assert await said.get() == "hello"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("crashes", "its process ended with status 7"),
        ("says why", "the file is damaged"),
        ("other version", "npu-gateway was changed from version .* to 0.0.1 while it ran"),
        ("other messages", "it sent what cannot be read .* `npu-gateway restart`"),
    ],
)
async def test_whatever_keeps_a_worker_from_loading_is_said_and_tried_again_until_it_is_gone(
    odd: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", odd)
    async with supervised(tmp_path / "log") as (worker, _, until):
        await until(lambda: worker.state == "failed")  # for the second time; the first is an accident

        with pytest.raises(WorkerUnavailable, match=f"the worker is not available: {reason}") as refused:
            await worker.ready()
        assert refused.value.retry_after_seconds >= 1
        monkeypatch.setenv("ODD", "fine")
        await until(lambda: worker.state == "ready")
        assert (worker.troubled, worker.detail) == (False, None)


@pytest.mark.parametrize("obstacle", ["log is a folder", "no interpreter", "no threads"])
async def test_a_worker_that_cannot_be_started_has_failed_and_is_tried_again(
    obstacle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "fine")
    log = tmp_path / "log"
    with pytest.MonkeyPatch.context() as broken:
        if obstacle == "log is a folder":
            log.mkdir()
        elif obstacle == "no interpreter":
            broken.setattr(sys, "executable", str(tmp_path / "gone"))
        else:
            broken.setattr("engine.workers.process.threading.Thread.start", no_thread)
        async with supervised(log) as (worker, _, until):
            await until(lambda: worker.state == "failed")
            assert "its process cannot be started" in str(worker.detail)
            broken.undo()
            if log.is_dir():
                log.rmdir()
            await until(lambda: worker.state == "ready")


def no_thread(_: object) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("odd", ["hangs", "hangs while loading"])
async def test_a_worker_that_hangs_is_ended_and_started_again(
    odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", odd)
    async with supervised(tmp_path / "log") as (worker, _, until):
        await until(lambda: worker.troubled)
        assert "its process hung and was ended: it stood still for" in str(worker.detail)
        monkeypatch.setenv("ODD", "fine")
        await until(lambda: worker.state == "ready" and not worker.troubled)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")
@pytest.mark.usefixtures("soon")
async def test_a_worker_that_is_stopped_is_ended_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "fine")
    async with supervised(tmp_path / "log") as (worker, _, until):
        await worker.ready()
        stopped = worker.pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)

        await until(lambda: worker.state == "ready" and worker.pid not in (None, stopped))


async def test_a_worker_that_has_worked_since_is_started_again_at_once_however_often_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "fine")
    async with supervised(tmp_path / "log") as (worker, said, until):
        states = []
        for _ in range(3):
            await until(lambda: worker.state == "ready")
            worker.send("work")
            await said.get()
            worker.kill()
            await until(lambda: worker.state != "ready")
            states.append(worker.state)

    assert states == ["loading"] * 3
