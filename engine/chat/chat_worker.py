"""The process that holds one chat model: `python -m engine.chat.chat_worker FOLDER --threads N`.

One thread receives messages, the main thread runs the scheduler and answers. When the gateway is gone the
process ends at once, whatever it is doing.
"""

import argparse
import logging
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from engine.chat.chat_messages import Cancel, ChatReady, Generate, Refused, Reply, Started
from engine.chat.conversation import Conversation
from engine.chat.grammar import GrammarCompiler
from engine.chat.prompt import PromptEncoder
from engine.chat.runtimes.genai import GenaiRuntime, chat_format
from engine.chat.runtimes.runtime import Runtime
from engine.chat.scheduler import Scheduler
from engine.chat.tools import explained, may_call
from engine.chat.vocabulary import Vocabulary
from engine.errors import ContextTooLong, EngineError
from engine.types import ChatRequest
from engine.workers.channel import Channel, inherited_channel
from engine.workers.handshake import LoadFailed

logger = logging.getLogger(__name__)

Inbox = queue.SimpleQueue[Generate | Cancel]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context-tokens", type=int)
    parser.add_argument("--kv-bytes", type=int, required=True)
    parser.add_argument("--speculate", action="store_true")
    parser.add_argument("--rest-seconds", type=float, help="without work, until conversations are forgotten")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    channel = inherited_channel()
    inbox: Inbox = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(channel, inbox), name="receive", daemon=True).start()
    try:
        chat = Chat.load(
            arguments.folder,
            threads=arguments.threads,
            context_tokens=arguments.context_tokens,
            kv_bytes=arguments.kv_bytes,
            speculate=arguments.speculate,
        )
    except (EngineError, OSError) as error:
        channel.send(LoadFailed(str(error)))
        return
    channel.send(ChatReady(chat.context_tokens))
    try:
        chat.serve(inbox, channel, arguments.rest_seconds)
    except OSError:
        os._exit(0)  # nobody reads the answers any more


class Chat:
    """Everything between a message from the gateway and the replies to it."""

    def __init__(
        self,
        runtime: Runtime,
        encoder: PromptEncoder,
        vocabulary: Vocabulary,
        end_tokens: frozenset[int],
        grammars: GrammarCompiler,
        speculate: bool,
    ) -> None:
        self.context_tokens = runtime.context_tokens
        self._runtime = runtime
        self._scheduler = Scheduler(runtime)
        self._encoder = encoder
        self._vocabulary = vocabulary
        self._end_tokens = end_tokens
        self._grammars = grammars
        self._speculates = speculate and runtime.reads_drafts
        if speculate and not runtime.reads_drafts:
            logger.warning("chat_speculation has no effect: this model tells the next token only")

    @classmethod
    def load(
        cls, folder: Path, *, threads: int, context_tokens: int | None, kv_bytes: int, speculate: bool
    ) -> "Chat":
        """Raises EngineError or OSError."""
        runtime = GenaiRuntime(folder, threads=threads, context_tokens=context_tokens, kv_bytes=kv_bytes)
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        chat = chat_format(folder)
        return cls(
            runtime,
            PromptEncoder(tokenizer_json, chat.template),
            Vocabulary(tokenizer_json),
            chat.end_tokens,
            GrammarCompiler(tokenizer_json, runtime.vocabulary_size, chat.end_tokens),
            speculate,
        )

    def serve(self, inbox: Inbox, channel: Channel, rest_seconds: float | None) -> None:
        """Never returns. Raises OSError when the gateway is gone."""
        while True:
            try:
                messages = _arrived(inbox, wait=self._scheduler.idle, at_most_seconds=rest_seconds)
            except queue.Empty:
                self._runtime.forget()
                messages = [inbox.get()]
            for message in messages:
                for reply in self._take(message):
                    channel.send(reply)
            for reply in self._scheduler.step():
                channel.send(reply)

    def _take(self, message: Generate | Cancel) -> Iterator[Reply]:
        match message:
            case Cancel(request_id):
                self._scheduler.cancel(request_id)
            case Generate(request_id, request):
                try:
                    conversation = self._conversation(request_id, request)
                    self._scheduler.submit(conversation)
                    yield Started(request_id, len(conversation.tokens))
                except EngineError as error:
                    yield Refused(request_id, error)

    def _conversation(self, request_id: int, request: ChatRequest) -> Conversation:
        """Raises BadInput, ContextTooLong."""
        grammar = self._grammars.compile(request)
        prompt = self._encoder.encode(explained(request.messages, request.tool_use))
        if len(prompt) >= self.context_tokens:
            raise ContextTooLong(
                limit_tokens=self.context_tokens, actual_tokens=len(prompt), field="messages"
            )
        return Conversation(
            request_id,
            prompt,
            request.sampling,
            context_tokens=self.context_tokens,
            vocabulary=self._vocabulary,
            end_tokens=self._end_tokens,
            grammar=grammar,
            reads_calls=request.tool_use is not None and may_call(request.tool_use),
            speculates=self._speculates,
        )


def _arrived(inbox: Inbox, *, wait: bool, at_most_seconds: float | None) -> list[Generate | Cancel]:
    """Everything that is in the inbox now; at least one message if asked to wait, or queue.Empty."""
    messages = [inbox.get(timeout=at_most_seconds)] if wait else []
    while not inbox.empty():
        messages.append(inbox.get())
    return messages


def _receive(channel: Channel, inbox: Inbox) -> None:
    try:
        while True:
            message = channel.receive()
            assert isinstance(message, Generate | Cancel), message
            inbox.put(message)
    except EOFError:
        os._exit(0)  # in the middle of an answer that nobody will read


if __name__ == "__main__":
    main()
