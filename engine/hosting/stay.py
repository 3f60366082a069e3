"""One stay of a model in memory, from the moment somebody wants it until the memory is given back."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from engine.errors import EngineError, ModelNotReady
from engine.models.store import InstalledModel
from engine.types import Device, EmbeddingWork, ModelState, NpuStatus
from engine.workers.backoff import Backoff

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""A model that could not be fetched or opened is tried again by the first request after so long."""

MOST_BETWEEN_TRIES_SECONDS = 300.0
"""And without any request: a laptop that is offline must not run pip twice a minute."""

ReportProgress = Callable[[str | None], None]
"""Says how far the download is; None once the model is on disk."""


class LoadedModel(Protocol):
    """What all kinds of models have in common."""

    @property
    def installed(self) -> InstalledModel: ...

    @property
    def state(self) -> ModelState: ...

    @property
    def detail(self) -> str | None: ...

    @property
    def degraded(self) -> bool:
        """Something of it does not work as it should; detail says what."""

    @property
    def worker_failures(self) -> int:
        """How often a process of it has ended by itself, hung or could not begin."""

    @property
    def device(self) -> Device: ...

    @property
    def context_tokens(self) -> int: ...

    @property
    def in_flight(self) -> int:
        """Texts or conversations that wait or are computed."""

    @property
    def preparing(self) -> bool:
        """Whether it may soon be faster than now."""

    @property
    def npu(self) -> NpuStatus | None:
        """None for a kind of model that has no use for an NPU."""

    @property
    def work(self) -> EmbeddingWork | None:
        """None for a kind that is not divided between devices."""

    async def ready(self) -> None:
        """Wait until it can be used. Raises Unavailable while it cannot."""

    def rss_bytes(self) -> int: ...


Open = Callable[[ReportProgress], AbstractAsyncContextManager[LoadedModel]]
"""Fetches the model if need be, reporting how far it is, and opens it; its end gives all memory back."""


class Stay:
    """Its task owns everything the model holds, so that ending the task gives all of it back."""

    def __init__(self, model_id: str, open_: Open) -> None:
        self.model_id = model_id
        self.model: LoadedModel | None = None
        self._failure: EngineError | None = None
        self._failed_at = 0.0
        self._waits = False
        self._fetching: str | None = None
        self._open = open_
        self._backoff = Backoff(MOST_BETWEEN_TRIES_SECONDS)
        self._settled = asyncio.Event()
        self._again = asyncio.Event()
        self._released = False
        self._life = asyncio.create_task(self._live(), name=f"stay of {model_id}")

    @property
    def state(self) -> ModelState:
        if self.model:
            return self.model.state
        return "failed" if self._waits else "loading"

    @property
    def detail(self) -> str | None:
        if self.model:
            return self.model.detail
        return self._fetching or (str(self._failure) if self._failure else None)

    async def loaded(self) -> LoadedModel:
        """The model, after waiting for it to load; but not for a download, which takes minutes.

        Raises Unavailable: during a download, and while something keeps the model from coming.
        """
        if self._waits and time.monotonic() - self._failed_at >= RETRY_SECONDS:
            self._try_again()
        if self._fetching:
            raise ModelNotReady(
                f"{self.model_id} is being fetched: {self._fetching}. Try again in a moment.",
                retry_after_seconds=10,
            )
        await self._settled.wait()
        if self.model is None:
            raise self._missing()
        await self.model.ready()
        return self.model

    async def release(self) -> None:
        """Give its memory back; requests in flight end with an error."""
        self._released = True
        self._again.set()
        if self.model is None:
            self._life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._life

    async def _live(self) -> None:
        try:
            while not self._released:
                if failure := await self._stay():
                    await self._fail(failure)
        finally:
            self._settled.set()

    async def _stay(self) -> EngineError | None:
        """In memory until released. Returns what kept the model from coming."""
        try:
            async with self._open(self._report) as model:
                self.model, self._failure = model, None
                self._settled.set()
                await self._again.wait()
        except EngineError as error:
            return error
        except Exception as error:  # a bug, or what the disk or the system refuses: never "loading" for ever
            logger.exception("%s cannot be brought into memory", self.model_id)
            return EngineError(f"{type(error).__name__}: {error}")
        finally:
            self.model = self._fetching = None
        return None

    async def _fail(self, failure: EngineError) -> None:
        """Returns when it is time to try again."""
        self._failure, self._failed_at, self._waits = failure, time.monotonic(), True
        self._settled.set()
        seconds = self._backoff.failed()
        logger.error("%s: %s; it is tried again within %.1f s", self.model_id, failure, seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._again.wait(), seconds)
        if not self._released:
            self._try_again()

    def _try_again(self) -> None:
        self._waits = False
        self._settled.clear()
        self._again.set()  # wakes who waits now, and nobody later
        self._again.clear()

    def _missing(self) -> ModelNotReady:
        if self._failure is None:
            return ModelNotReady(f"{self.model_id} was unloaded.", retry_after_seconds=1)
        return ModelNotReady(
            f"{self.model_id} is not available: {self._failure} It is tried again by itself, and at once by "
            f"`npu-gateway load {self.model_id}`.",
            retry_after_seconds=RETRY_SECONDS,
        )

    def _report(self, fetching: str | None) -> None:
        self._fetching = fetching
