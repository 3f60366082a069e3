"""One stay of a model in memory, from the moment somebody wants it until the memory is given back."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

from engine.errors import EngineError, ModelNotReady
from engine.types import Device, ModelState

logger = logging.getLogger(__name__)

Report = Callable[[str | None], None]
"""Says how far the download is; None once the model is on disk."""


class LoadedModel(Protocol):
    """What an embedding model and a chat model have in common."""

    @property
    def state(self) -> ModelState: ...

    @property
    def detail(self) -> str | None: ...

    @property
    def device(self) -> Device: ...

    @property
    def context_tokens(self) -> int: ...

    def rss_bytes(self) -> int: ...


M = TypeVar("M", bound=LoadedModel)


class Resident(Generic[M]):
    """Its task owns everything the model holds, so that ending the task gives all of it back.

    bring_up: fetches and loads the model inside an `async with`, reporting the download meanwhile.
    """

    def __init__(self, model_id: str, bring_up: Callable[[Report], AbstractAsyncContextManager[M]]) -> None:
        self.model_id = model_id
        self.model: M | None = None
        self._failure: EngineError | None = None
        self._failed_at = 0.0
        self._fetching: str | None = None
        self._bring_up = bring_up
        self._settled = asyncio.Event()
        self._released = asyncio.Event()
        self._life = asyncio.create_task(self._live(), name=f"resident {model_id}")

    @property
    def state(self) -> ModelState:
        if self.model:
            return self.model.state
        return "failed" if self._failure else "loading"

    @property
    def detail(self) -> str | None:
        if self.model:
            return self.model.detail
        return str(self._failure) if self._failure else self._fetching

    def failed_for(self, seconds: float) -> bool:
        return self._failure is not None and time.monotonic() - self._failed_at >= seconds

    async def loaded(self) -> M:
        """The model, after waiting for it to load; but not for a download, which takes minutes.

        Raises ModelNotReady during a download, and what kept the model from coming.
        """
        if self._fetching:
            raise ModelNotReady(
                f"{self.model_id} is being fetched: {self._fetching}. Try again in a moment.",
                retry_after_seconds=10,
            )
        await self._settled.wait()
        if self.model is None:
            raise self._failure or ModelNotReady(f"{self.model_id} was unloaded.", retry_after_seconds=1)
        return self.model

    async def release(self) -> None:
        """Give its memory back; requests in flight end with an error."""
        self._released.set()
        if self.model is None:
            self._life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._life

    async def _live(self) -> None:
        try:
            async with self._bring_up(self._report) as model:
                self.model = model
                self._settled.set()
                await self._released.wait()
        except EngineError as error:
            logger.error("%s: %s", self.model_id, error)
            self._failure, self._failed_at = error, time.monotonic()
        finally:
            self.model = None
            self._settled.set()

    def _report(self, fetching: str | None) -> None:
        self._fetching = fetching
