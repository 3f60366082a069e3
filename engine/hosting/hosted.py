"""One model over the life of the gateway: in memory while there is work for it and some time after.

    unloaded -> (load, or a request) loading -> ready -> (idle for long, or unload) unloaded

It is never taken from under a request: one that runs is finished first, and one that arrives while the memory
is being given back waits for that and then loads the model again.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from engine.hosting.stay import LoadedModel, Open, Stay
from engine.hosting.tally import Tally
from engine.types import ModelKind, ModelState


class HostedModel:
    """keep_alive_seconds: how long it stays in memory without work; None for ever."""

    def __init__(
        self, model_id: str, kind: ModelKind, open_: Open, *, keep_alive_seconds: float | None = None
    ) -> None:
        self.kind = kind
        self.tally = Tally()
        self._model_id = model_id
        self._open = open_
        self._keep_alive_seconds = keep_alive_seconds
        self._stay: Stay | None = None
        self._users = 0
        self._unload_when_free = False
        self._expiry: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None

    @property
    def model(self) -> LoadedModel | None:
        return self._present.model if self._present else None

    @property
    def state(self) -> ModelState:
        """It counts as unloaded as soon as its memory is being given back."""
        return self._present.state if self._present else "unloaded"

    @property
    def detail(self) -> str | None:
        return self._present.detail if self._present else None

    @property
    def _present(self) -> Stay | None:
        return None if self._releasing else self._stay

    def start(self) -> None:
        """Begin to load in the background what is not in memory."""
        self._stay = Stay(self._model_id, self._open)
        self._rest()  # nobody may ever ask for it

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncGenerator[LoadedModel]:
        """The model, loaded, and not unloaded for the length of the block.

        Raises Unavailable: during a download, and while something keeps the model from loading.
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

    async def _loaded(self) -> LoadedModel:
        while self._releasing:
            await asyncio.wait([self._releasing])
        if self._stay is None:
            self.start()
        assert self._stay is not None
        return await self._stay.loaded()

    def _rest(self) -> None:
        """When nothing runs any more, the time that the model is kept begins."""
        if self._users or self._stay is None:
            return
        if self._unload_when_free:
            self._begin_release()
        elif self._keep_alive_seconds is not None:
            self._stop_expiry()
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(self._keep_alive_seconds, self._expired)

    def _expired(self) -> None:
        if self.state == "ready":
            self._begin_release()
        else:  # it still loads, or says why it can't
            self._rest()

    def _stop_expiry(self) -> None:
        if self._expiry:
            self._expiry.cancel()

    async def _release(self) -> None:
        self._begin_release()
        if self._releasing:
            await asyncio.wait([self._releasing])  # goes on even if whoever waits here leaves

    def _begin_release(self) -> None:
        self._stop_expiry()
        if self._stay and not self._releasing:
            self._releasing = asyncio.create_task(
                self._give_back(self._stay), name=f"release of {self._model_id}"
            )

    async def _give_back(self, stay: Stay) -> None:
        try:
            await stay.release()
        finally:
            self._stay = self._releasing = None
            self._unload_when_free = False
