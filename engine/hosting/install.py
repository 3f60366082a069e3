"""Fetches a model in a process of its own, which ends when this coroutine is cancelled."""

import asyncio
import logging
from pathlib import Path

from engine.errors import ModelSupplyError
from engine.hosting.resident import Report
from engine.models.progress import PullProgress
from engine.models.store import InstalledModel, ModelStore
from engine.workers.handshake import LoadFailed, Ready
from engine.workers.process import WorkerProcess

logger = logging.getLogger(__name__)


async def fetch(store: ModelStore, model_id: str, *, log_file: Path, report: Report) -> InstalledModel:
    """Raises ModelSupplyError with the reason."""
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def received(message: object) -> None:
        match message:
            case PullProgress(doing, done_bytes, total_bytes):
                share = f" ({done_bytes / total_bytes:.0%})" if total_bytes else ""
                report(f"{doing}{share}")
            case Ready():
                outcome.set_result(None)
            case LoadFailed(reason):
                outcome.set_exception(ModelSupplyError(reason))

    def ended(status: int) -> None:
        if not outcome.done():
            logger.error("fetching %s ended with status %d; its log is %s", model_id, status, log_file)
            outcome.set_exception(
                ModelSupplyError(f"fetching {model_id} ended with status {status}; see `npu-gateway logs`")
            )

    worker = WorkerProcess(
        "engine.models.pull_worker",
        [str(store.folder), model_id],
        log_file=log_file,
        on_message=received,
        on_exit=ended,
    )
    try:
        await outcome
    finally:
        await worker.stop()
    return store.require(model_id)
