"""One model over the life of the gateway: in memory while there is work for it and some time after.

    unloaded -> (load, or a request) loading -> ready -> (idle for long, or unload) unloaded

It is never taken from under a request: one that runs is finished first, and one that arrives while the memory
is being given back waits for that and then loads the model again.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic

from engine.hosting.resident import M, Report, Resident
from engine.hosting.tally import Tally
from engine.types import ModelState

RETRY_SECONDS = 30.0
"""A model that could not be fetched or loaded is tried again by the first request after so long."""


class HostedModel(Generic[M]):
    """bring_up: fetches and loads the model inside an `async with`, reporting the download meanwhile.

    keep_alive_seconds: how long it stays in memory without work; None for ever.
    """

    def __init__(
        self,
        model_id: str,
        bring_up: Callable[[Report], AbstractAsyncContextManager[M]],
        *,
        keep_alive_seconds: float | None = None,
    ) -> None:
        self.tally = Tally()
        self._model_id = model_id
        self._bring_up = bring_up
        self._keep_alive_seconds = keep_alive_seconds
        self._resident: Resident[M] | None = None
        self._users = 0
        self._unload_when_free = False
        self._expiry: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None

    @property
    def model(self) -> M | None:
        return self._present.model if self._present else None

    @property
    def state(self) -> ModelState:
        """It counts as unloaded as soon as its memory is being given back."""
        return self._present.state if self._present else "unloaded"

    @property
    def detail(self) -> str | None:
        return self._present.detail if self._present else None

    @property
    def _present(self) -> Resident[M] | None:
        return None if self._releasing else self._resident

    def start(self) -> None:
        """Begin to load in the background what has never been loaded."""
        self._resident = Resident(self._model_id, self._brought_up)

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncGenerator[M]:
        """The model, loaded, and not unloaded for the length of the block.

        Raises ModelNotReady during a download, and what kept the model from loading.
        """
        self._users += 1
        self._stop_expiry()
        try:
            yield await self._loaded()
        finally:
            self._users -= 1
            self._rest()

    async def load(self) -> None:
        """Returns when it is loaded; after a failure it is tried again at once. Raises as `in_use` does."""
        self._unload_when_free = False
        if self.state == "failed":
            await self._release()
        async with self.in_use():
            pass

    async def unload(self) -> None:
        """Returns when its memory is given back; while requests run, at once, and the last one unloads it."""
        if self._users:
            self._unload_when_free = True
        else:
            await self._release()

    async def close(self) -> None:
        """For the end of the gateway: does not wait for requests."""
        await self._release()

    async def _loaded(self) -> M:
        while self._releasing:
            await asyncio.wait([self._releasing])
        if self._resident is None or self._resident.failed_for(RETRY_SECONDS):
            self.start()
        assert self._resident is not None
        return await self._resident.loaded()

    @contextlib.asynccontextmanager
    async def _brought_up(self, report: Report) -> AsyncGenerator[M]:
        async with self._bring_up(report) as model:
            self._rest()  # nobody may have asked for it yet, or nobody who asked may still wait
            yield model

    def _rest(self) -> None:
        """When nothing runs any more, the time that the model is kept begins."""
        if self._users or self._resident is None:
            return
        if self._unload_when_free:
            self._begin_release()
        elif self._keep_alive_seconds is not None:
            self._stop_expiry()
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(self._keep_alive_seconds, self._expired)

    def _expired(self) -> None:
        if self.model:  # one that could not be loaded keeps saying so
            self._begin_release()

    def _stop_expiry(self) -> None:
        if self._expiry:
            self._expiry.cancel()

    async def _release(self) -> None:
        self._begin_release()
        if self._releasing:
            await asyncio.wait([self._releasing])  # goes on even if whoever waits here leaves

    def _begin_release(self) -> None:
        self._stop_expiry()
        if self._resident and not self._releasing:
            self._releasing = asyncio.create_task(
                self._give_back(self._resident), name=f"release of {self._model_id}"
            )

    async def _give_back(self, resident: Resident[M]) -> None:
        try:
            await resident.release()
        finally:
            self._resident = self._releasing = None
            self._unload_when_free = False
