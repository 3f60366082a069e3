"""A chat worker process as its parent sees it, with every wait bounded."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.chat.chat_messages import Cancel, Finished, Generate, Piece, Refused, Reply
from engine.types import ChatRequest, Message, Sampling
from engine.workers.channel import Channel

PATIENCE_SECONDS = 120


class ChatWorker:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdin
        assert process.stdout
        self._channel = Channel(process.stdout, process.stdin)
        self._arrived: queue.Queue[object] = queue.Queue()
        self._next_id = 0
        threading.Thread(target=self._read, daemon=True).start()

    def receive(self) -> object:
        """The next message; EOFError() once the worker is gone."""
        return self._arrived.get(timeout=PATIENCE_SECONDS)

    def ask(self, content: str | list[Message], **sampling: object) -> int:
        """Sends the request; temperature 0 unless told otherwise. Returns its id."""
        messages = [Message("user", content)] if isinstance(content, str) else content
        wanted = Sampling(**{"temperature": 0.0, **sampling})
        return self.send(ChatRequest(tuple(messages), sampling=wanted))

    def send(self, request: ChatRequest) -> int:
        """Returns the id that its replies will have."""
        self._next_id += 1
        self._channel.send(Generate(self._next_id, request))
        return self._next_id

    def cancel(self, request_id: int) -> None:
        self._channel.send(Cancel(request_id))

    def replies(self, *request_ids: int) -> list[Reply]:
        """Everything that comes until all these requests have ended, in the order of arrival."""
        open_ids = set(request_ids)
        replies: list[Reply] = []
        while open_ids:
            reply = self.receive()
            assert isinstance(reply, Reply), reply
            replies.append(reply)
            if isinstance(reply, Finished | Refused):
                open_ids.discard(reply.request_id)
        return replies

    def answer(self, content: str | list[Message], **sampling: object) -> tuple[str, Finished]:
        request_id = self.ask(content, **sampling)
        replies = self.replies(request_id)
        assert isinstance(replies[-1], Finished), replies
        return text_of(request_id, replies), replies[-1]

    def _read(self) -> None:
        try:
            while True:
                self._arrived.put(self._channel.receive())
        except EOFError as gone:
            self._arrived.put(gone)


def text_of(request_id: int, replies: list[Reply]) -> str:
    return "".join(r.text for r in replies if isinstance(r, Piece) and r.request_id == request_id)


@contextmanager
def chat_worker(folder: Path, *arguments: str) -> Iterator[ChatWorker]:
    """Killed at the end if it still runs."""
    fixed = [str(folder), "--threads", "2", "--kv-bytes", str(1536 << 20)]  # the last of a kind counts
    command = [sys.executable, "-m", "engine.chat.chat_worker", *fixed, *arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
    ) as process:
        try:
            yield ChatWorker(process)
        finally:
            process.kill()
