"""Puts a model on disk that can come by itself, in a process of its own.

That process ends when the coroutine that waits for it is cancelled.
"""

import asyncio
import logging
from pathlib import Path

from engine.errors import ModelSupplyError
from engine.hosting.stay import ReportProgress
from engine.models.catalogue import Catalogue
from engine.models.progress import PullOptions, PullProgress
from engine.models.registry import is_embedded, is_known
from engine.models.store import VERIFIED_FIRST_BYTES, InstalledModel
from engine.workers.exits import in_words
from engine.workers.handshake import LoadFailed, Ready
from engine.workers.process import WorkerProcess

logger = logging.getLogger(__name__)


async def installed(
    catalogue: Catalogue, model_id: str, *, log_folder: Path, report: ReportProgress
) -> InstalledModel:
    """The model, its bytes verified if that is quick; fetched first if it can come by itself.

    Raises ModelNotFound or ModelSupplyError.
    """
    if catalogue.get(model_id) is None and _comes_by_itself(catalogue, model_id):
        report("fetching")
        await _fetch(catalogue.store.folder, model_id, log_folder / f"pull-{model_id}.log", report)
        report(None)
    found = catalogue.require(model_id)
    if found.size_bytes <= VERIFIED_FIRST_BYTES:
        await verified(catalogue, found)
    return found


async def verified(catalogue: Catalogue, model: InstalledModel) -> None:
    """Raises ModelSupplyError for one whose files are not what was installed; it is then known as broken."""
    try:
        await asyncio.to_thread(catalogue.store.verify, model.id)
    finally:
        catalogue.look()


def _comes_by_itself(catalogue: Catalogue, model_id: str) -> bool:
    """The embedded models do; of the others, those that were here once and have been damaged since."""
    if is_embedded(model_id):
        return True
    return is_known(model_id) and catalogue.store.is_broken(model_id)


async def _fetch(models: Path, model_id: str, log_file: Path, report: ReportProgress) -> None:
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

    def ended(status: int, wrong: str | None) -> None:
        if not outcome.done():
            reason = wrong or f"its process ended with {in_words(status)}"
            logger.error("fetching %s: %s; its log is %s", model_id, reason, log_file)
            outcome.set_exception(
                ModelSupplyError(f"{model_id} was not fetched: {reason}; see `npu-gateway logs`.")
            )

    worker = WorkerProcess(
        "engine.models.pull_worker",
        PullOptions(models, model_id),
        log_file=log_file,
        on_message=received,
        on_exit=ended,
    )
    try:
        await outcome
    finally:
        await worker.stop()
