"""A chat model as the engine sees it: messages in, a stream of events out."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator

from engine.chat.chat_messages import (
    Admitted,
    Cancel,
    ChatOptions,
    ChatReady,
    Ended,
    FromChatWorker,
    Generate,
    Happened,
)
from engine.errors import WorkerCrashed
from engine.hardware import physical_cores
from engine.models.store import InstalledModel
from engine.settings import Settings
from engine.types import ChatEvent, ChatFinished, ChatRequest, ChatStarted, Device, ModelState
from engine.workers.supervisor import Supervisor


class ChatModel:
    """Owns the worker; `async with ChatModel.open(...)`."""

    def __init__(self, installed: InstalledModel, settings: Settings) -> None:
        self.installed = installed
        self._worker = Supervisor(
            installed.id,
            "engine.chat.chat_worker",
            ChatOptions(
                folder=installed.folder,
                threads=physical_cores(),
                kv_bytes=settings.chat_kv_mb << 20,
                answer_tokens=settings.chat_answer_tokens,
                wait_seconds=settings.chat_wait_seconds,
                context_tokens=settings.chat_context_tokens,
                rest_seconds=settings.keep_alive_minutes * 60 or None,
                speculate=settings.chat_speculation,
            ),
            log_file=settings.home.log / f"{installed.id}.log",
            on_message=self._received,
            on_change=self._changed,
        )
        self._open: dict[int, asyncio.Queue[FromChatWorker]] = {}
        self._ids = itertools.count()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, installed: InstalledModel, settings: Settings) -> AsyncGenerator["ChatModel"]:
        model = cls(installed, settings)
        model._worker.start()
        try:
            yield model
        finally:
            await model._worker.stop()
            model._end_all(f"{installed.id} was taken out of memory; send the request again.")

    @property
    def state(self) -> ModelState:
        return self._worker.state

    @property
    def detail(self) -> str | None:
        return self._worker.detail

    @property
    def device(self) -> Device:
        return "cpu"

    @property
    def context_tokens(self) -> int:
        """What the settings and the memory for keys and values leave of it, once the model is loaded."""
        ready = self._worker.ready_message
        return ready.context_tokens if isinstance(ready, ChatReady) else self.installed.context_tokens

    @property
    def degraded(self) -> bool:
        return self._worker.troubled

    @property
    def worker_failures(self) -> int:
        return self._worker.failures

    @property
    def preparing(self) -> bool:
        return False

    @property
    def npu(self) -> None:
        return None

    @property
    def work(self) -> None:
        return None

    async def ready(self) -> None:
        """Wait until the model is loaded. Raises WorkerUnavailable when it cannot be loaded now."""
        await self._worker.ready()

    def rss_bytes(self) -> int:
        return self._worker.rss_bytes()

    @property
    def in_flight(self) -> int:
        return len(self._open)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """Close the generator to cancel: the worker then drops the conversation at its next step.

        Raises BadInput, ContextTooLong, Overloaded, Unavailable; WorkerCrashed when the worker ends.
        """
        await self.ready()
        request_id = next(self._ids)
        messages = self._open[request_id] = asyncio.Queue()
        self._worker.send(Generate(request_id, request))
        ended = False
        try:
            while not ended:
                match await messages.get():
                    case Admitted(loosened=loosened):
                        yield ChatStarted(self.installed.id, self.device, self.installed.revision, loosened)
                    case Happened(event=event):
                        ended = isinstance(event, ChatFinished)
                        yield event
                    case Ended(error=error):
                        ended = True
                        raise error
        finally:
            del self._open[request_id]
            if not ended and self._worker.state == "ready":
                self._worker.send(Cancel(request_id))

    def _received(self, message: object) -> None:
        assert isinstance(message, FromChatWorker), message
        if messages := self._open.get(message.request_id):  # else its caller has left
            messages.put_nowait(message)

    def _changed(self) -> None:
        if self._worker.state != "ready":
            self._end_all(f"The process that runs {self.installed.id} ended; send the request again.")

    def _end_all(self, why: str) -> None:
        for request_id, messages in self._open.items():
            messages.put_nowait(Ended(request_id, WorkerCrashed(why)))
