"""The process that holds one chat model: `python -m engine.chat.chat_worker`.

One thread receives messages, one makes conversations of requests, and the main thread runs the scheduler and
answers. When the gateway is gone the process ends at once, whatever it is doing.
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
from engine.chat.grammar import GrammarCompiler
from engine.chat.intake import Intake, Prepared
from engine.chat.prompt import PromptEncoder
from engine.chat.runtimes.genai import GenaiRuntime, end_tokens
from engine.chat.runtimes.runtime import Runtime
from engine.chat.scheduler import Scheduler
from engine.chat.template import ChatTemplate
from engine.chat.vocabulary import Vocabulary
from engine.errors import EngineError
from engine.models.store import refuse_damaged
from engine.models.templates.renderer import TemplateRenderer
from engine.workers.channel import Channel
from engine.workers.child import begun, received_by
from engine.workers.handshake import Ping, Pong

logger = logging.getLogger(__name__)

Arrival = Prepared | Ended | Cancel | Ping
Inbox = queue.SimpleQueue[Arrival]


def main() -> None:
    with (
        begun(ChatOptions) as (channel, options),
        TemplateRenderer(options.folder, options.folder.name) as renderer,
    ):
        refuse_damaged(options.folder)
        runtime = GenaiRuntime(
            options.folder,
            threads=options.threads,
            context_tokens=options.context_tokens,
            kv_bytes=options.kv_bytes,
        )
        inbox: Inbox = queue.SimpleQueue()
        intake = _intake(runtime, options, ChatTemplate(renderer.render))
        intake.start(inbox.put)

        def take(message: object) -> None:
            match message:
                case Generate() | Cancel():
                    intake.put(message)
                case Ping():
                    inbox.put(message)
                case _:
                    raise AssertionError(f"unexpected from the gateway: {message!r}")

        received_by(channel, take)
        channel.send(ChatReady(runtime.context_tokens))
        try:
            Chat(runtime, options.wait_seconds).serve(inbox, channel, options.rest_seconds)
        except OSError:
            os._exit(0)  # nobody reads the answers any more


def _intake(runtime: Runtime, options: ChatOptions, template: ChatTemplate) -> Intake:
    """Raises EngineError or OSError."""
    tokenizer_json = (options.folder / "tokenizer.json").read_text(encoding="utf-8")
    ends = end_tokens(options.folder)
    if options.speculate and not runtime.reads_drafts:
        logger.warning("chat_speculation has no effect: this model tells the next token only")
    return Intake(
        PromptEncoder(tokenizer_json, template),
        Vocabulary(tokenizer_json),
        ends,
        GrammarCompiler(tokenizer_json, runtime.vocabulary_size, ends),
        context_tokens=runtime.context_tokens,
        answer_tokens=options.answer_tokens,
        speculates=options.speculate and runtime.reads_drafts,
    )


class Chat:
    """The loop that does the work, and answers for it."""

    def __init__(self, runtime: Runtime, wait_seconds: float) -> None:
        self._runtime = runtime
        self._scheduler = Scheduler(runtime, most_wait_seconds=wait_seconds)
        self._slowest_step_seconds = 0.0
        self._worked_at = time.monotonic()
        self._rests = True

    def serve(self, inbox: Inbox, channel: Channel, rest_seconds: float | None) -> None:
        """Never returns. Raises OSError when the gateway is gone."""
        while True:
            for message in self._arrived(inbox, rest_seconds):
                for reply in self._take(message):
                    channel.send(reply)
            began = time.perf_counter()
            for event in self._scheduler.step():
                channel.send(event)
            self._slowest_step_seconds = max(self._slowest_step_seconds, time.perf_counter() - began)

    def _arrived(
        self, inbox: Inbox, rest_seconds: float | None
    ) -> Iterator[Prepared | Ended | Cancel | Ping]:
        """Everything that is in the inbox now; while there is nothing to do, at least one message."""
        if self._scheduler.idle:
            try:
                yield inbox.get(timeout=self._seconds_to_rest(rest_seconds))
            except queue.Empty:
                self._runtime.forget()
                self._rests = True
        else:
            self._worked_at, self._rests = time.monotonic(), False
        while not inbox.empty():
            yield inbox.get()

    def _seconds_to_rest(self, rest_seconds: float | None) -> float | None:
        """Until what ended conversations have left is given back; None when that has been done."""
        if self._rests or rest_seconds is None:
            return None
        return max(self._worked_at + rest_seconds - time.monotonic(), 0.001)

    def _take(self, message: Arrival) -> Iterator[FromChatWorker | Pong]:
        match message:
            case Ping():
                yield Pong(self._slowest_step_seconds)
            case Cancel(request_id):
                self._scheduler.cancel(request_id)
            case Ended():
                yield message
            case Prepared(conversation, loosened):
                try:
                    self._scheduler.submit(conversation)
                    yield Admitted(conversation.request_id, loosened)
                except EngineError as error:
                    yield Ended(conversation.request_id, error)


if __name__ == "__main__":
    main()
