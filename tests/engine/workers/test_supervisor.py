"""What keeps one worker running."""

import asyncio
from pathlib import Path

from engine.workers.supervisor import Supervisor


async def test_a_worker_that_becomes_ready_while_it_is_stopped_stays_stopped(tmp_path: Path) -> None:
    changes: list[str] = []
    worker = Supervisor(
        "late",
        "tests.engine.workers.late_worker",
        [],
        log_file=tmp_path / "late.log",
        on_message=lambda message: None,
        on_change=lambda: changes.append(worker.state),
    )
    async with asyncio.timeout(30):
        worker.start()
        await worker.stop()

    assert (worker.state, worker.pid, changes) == ("unloaded", None, [])
