"""A chat worker process as its parent sees it, with every wait bounded."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from engine.chat.chat_messages import Cancel, ChatOptions, FromChatWorker, Generate
from engine.errors import EngineError
from engine.types import ChatFinished, ChatRequest, Message, Sampling
from engine.workers.channel import Channel
from engine.workers.handshake import assign, introduced
from tests.engine.chat.seen import Seen, Seens, of, seen, text_of

PATIENCE_SECONDS = 120


class ChatWorker:
    def __init__(self, process: subprocess.Popen[bytes], options: ChatOptions) -> None:
        self.process = process
        self._channel = Channel(cast(BinaryIO, process.stdout), cast(BinaryIO, process.stdin))
        assign(self._channel, options)
        assert introduced(self._channel) == process.pid
        self._arrived: queue.Queue[object] = queue.Queue()
        self._next_id = 0
        threading.Thread(target=self._read, daemon=True).start()

    def receive(self) -> object:
        """The next message; EOFError() once the worker is gone."""
        return self._arrived.get(timeout=PATIENCE_SECONDS)

    def ask(self, content: str | list[Message], **sampling: Any) -> int:
        """Sends the request; temperature 0 unless told otherwise. Returns its id."""
        messages = [Message("user", content)] if isinstance(content, str) else content
        wanted: dict[str, Any] = {"temperature": 0.0, **sampling}
        return self.send(ChatRequest(tuple(messages), sampling=Sampling(**wanted)))

    def send(self, request: ChatRequest) -> int:
        """Returns the id that its replies will have."""
        self._next_id += 1
        self._channel.send(Generate(self._next_id, request))
        return self._next_id

    def cancel(self, request_id: int) -> None:
        self._channel.send(Cancel(request_id))

    def replies(self, *request_ids: int) -> Seens:
        """Everything that comes until all these requests have ended, in the order of arrival."""
        open_ids = set(request_ids)
        replies: Seens = []
        while open_ids:
            message = self.receive()
            assert isinstance(message, FromChatWorker), message
            replies.append(seen(message))
            if isinstance(replies[-1][1], ChatFinished | EngineError):
                open_ids.discard(message.request_id)
        return replies

    def events(self, request_id: int) -> list[Seen]:
        return of(request_id, self.replies(request_id))

    def refusal(self, request_id: int) -> EngineError:
        (error,) = self.events(request_id)
        assert isinstance(error, EngineError)
        return error

    def answer(self, content: str | list[Message], **sampling: Any) -> tuple[str, ChatFinished]:
        request_id = self.ask(content, **sampling)
        replies = self.replies(request_id)
        _, finished = replies[-1]
        assert isinstance(finished, ChatFinished), replies
        return text_of(request_id, replies), finished

    def _read(self) -> None:
        try:
            while True:
                self._arrived.put(self._channel.receive())
        except EOFError as gone:
            self._arrived.put(gone)


@contextmanager
def chat_worker(
    folder: Path, *, kv_bytes: int = 1536 << 20, rest_seconds: float | None = None, speculate: bool = False
) -> Iterator[ChatWorker]:
    """Killed at the end if it still runs."""
    command = [sys.executable, "-m", "engine.chat.chat_worker"]
    options = ChatOptions(folder, 2, kv_bytes, 8192, 3600.0, rest_seconds=rest_seconds, speculate=speculate)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
    ) as process:
        try:
            yield ChatWorker(process, options)
        finally:
            process.kill()
