"""A chat model as the engine sees it: messages in, a stream of events out."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator

from engine.chat.chat_messages import Called, Cancel, ChatReady, Finished, Generate, Piece, Refused, Started
from engine.errors import EngineError, WorkerCrashed
from engine.hardware import physical_cores
from engine.models.store import InstalledModel
from engine.settings import Settings
from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    ChatToolCall,
    Device,
    ModelState,
)
from engine.workers.supervisor import Supervisor


class ChatModel:
    """Owns the worker; `async with ChatModel.open(...)`."""

    def __init__(self, installed: InstalledModel, settings: Settings) -> None:
        self.installed = installed
        arguments = ["--threads", str(physical_cores()), "--kv-bytes", str(settings.chat_kv_mb << 20)]
        if settings.chat_context_tokens is not None:
            arguments += ["--context-tokens", str(settings.chat_context_tokens)]
        if settings.keep_alive_minutes:
            arguments += ["--rest-seconds", str(settings.keep_alive_minutes * 60)]
        if settings.chat_speculation:
            arguments.append("--speculate")
        self._worker = Supervisor(
            installed.id,
            "engine.chat.chat_worker",
            [str(installed.folder), *arguments],
            log_file=settings.home.log / f"{installed.id}.log",
            on_message=self._received,
            on_change=self._changed,
        )
        self._open: dict[int, asyncio.Queue[object]] = {}
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

    async def ready(self) -> None:
        """Wait until the model is loaded. Raises WorkerFailed when it never will be."""
        await self._worker.ready()

    def rss_bytes(self) -> int:
        return self._worker.rss_bytes()

    @property
    def in_flight(self) -> int:
        return len(self._open)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """Close the generator to cancel: the worker then drops the conversation at its next step.

        Raises BadInput, ContextTooLong, Overloaded, WorkerFailed, WorkerCrashed.
        """
        await self.ready()
        request_id = next(self._ids)
        replies = self._open[request_id] = asyncio.Queue()
        self._worker.send(Generate(request_id, request))
        ended = False
        try:
            while not ended:
                match await replies.get():
                    case Started():
                        yield ChatStarted(self.installed.id, "cpu", self.installed.revision)
                    case Piece(text=text, logprobs=logprobs):
                        yield ChatPiece(text, logprobs)
                    case Called(call=call):
                        yield ChatToolCall(call)
                    case Finished(finish_reason=finish_reason, usage=usage, queue_seconds=queue_seconds):
                        ended = True
                        yield ChatFinished(finish_reason, usage, queue_seconds)
                    case Refused(error=error):
                        ended = True
                        raise error
                    case EngineError() as lost:
                        ended = True
                        raise lost
        finally:
            del self._open[request_id]
            if not ended and self._worker.state == "ready":
                self._worker.send(Cancel(request_id))

    def _received(self, message: object) -> None:
        assert isinstance(message, Started | Piece | Called | Finished | Refused), message
        if replies := self._open.get(message.request_id):  # else its caller has left
            replies.put_nowait(message)

    def _changed(self) -> None:
        if self._worker.state == "ready":
            return
        for replies in self._open.values():
            replies.put_nowait(
                WorkerCrashed(f"The process that runs {self.installed.id} ended; send the request again.")
            )
