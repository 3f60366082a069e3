"""The process that holds one chat model: `python -m engine.chat.chat_worker`.

One thread receives messages, the main thread runs the scheduler and answers. When the gateway is gone the
process ends at once, whatever it is doing.
"""

import logging
import os
import queue
import time
from collections.abc import Iterator

from engine.chat.chat_messages import (
    Admitted,
    Cancel,
    ChatOptions,
    ChatReady,
    Ended,
    FromChatWorker,
    Generate,
)
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
from engine.workers.channel import Channel
from engine.workers.child import begun, received_by
from engine.workers.handshake import Ping, Pong

logger = logging.getLogger(__name__)

Inbox = queue.SimpleQueue[object]


def main() -> None:
    with begun(ChatOptions) as (channel, options):
        inbox: Inbox = queue.SimpleQueue()
        received_by(channel, inbox.put)
        chat = Chat.load(options)
        channel.send(ChatReady(chat.context_tokens))
        try:
            chat.serve(inbox, channel, options.rest_seconds)
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
        self._slowest_step_seconds = 0.0
        self._speculates = speculate and runtime.reads_drafts
        if speculate and not runtime.reads_drafts:
            logger.warning("chat_speculation has no effect: this model tells the next token only")

    @classmethod
    def load(cls, options: ChatOptions) -> "Chat":
        """Raises EngineError or OSError."""
        folder = options.folder
        runtime = GenaiRuntime(
            folder,
            threads=options.threads,
            context_tokens=options.context_tokens,
            kv_bytes=options.kv_bytes,
        )
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        chat = chat_format(folder)
        return cls(
            runtime,
            PromptEncoder(tokenizer_json, chat.template),
            Vocabulary(tokenizer_json),
            chat.end_tokens,
            GrammarCompiler(tokenizer_json, runtime.vocabulary_size, chat.end_tokens),
            options.speculate,
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
            began = time.perf_counter()
            for reply in self._scheduler.step():
                channel.send(reply)
            self._slowest_step_seconds = max(self._slowest_step_seconds, time.perf_counter() - began)

    def _take(self, message: object) -> Iterator[FromChatWorker | Pong]:
        match message:
            case Cancel(request_id):
                self._scheduler.cancel(request_id)
            case Ping():
                yield Pong(self._slowest_step_seconds)
            case Generate(request_id, request):
                try:
                    conversation, loosened = self._conversation(request_id, request)
                    self._scheduler.submit(conversation)
                    yield Admitted(request_id, loosened)
                except EngineError as error:
                    yield Ended(request_id, error)
            case _:
                raise AssertionError(f"unexpected from the gateway: {message!r}")

    def _conversation(self, request_id: int, request: ChatRequest) -> tuple[Conversation, tuple[str, ...]]:
        """And what was loosened for it. Raises BadInput, ContextTooLong."""
        grammar = self._grammars.compile(request)
        prompt = self._encoder.encode(explained(request.messages, request.tool_use))
        if len(prompt) >= self.context_tokens:
            raise ContextTooLong(
                limit_tokens=self.context_tokens, actual_tokens=len(prompt), field="messages"
            )
        conversation = Conversation(
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
        return conversation, grammar.loosened if grammar else ()


def _arrived(inbox: Inbox, *, wait: bool, at_most_seconds: float | None) -> list[object]:
    """Everything that is in the inbox now; at least one message if asked to wait, or queue.Empty."""
    messages = [inbox.get(timeout=at_most_seconds)] if wait else []
    while not inbox.empty():
        messages.append(inbox.get())
    return messages


if __name__ == "__main__":
    main()
