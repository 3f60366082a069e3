"""What is counted of the answers to one request, whole or while they are streamed."""

import time
from collections.abc import Sequence

from engine.types import ChatFinished, ChatPiece, ChatStarted, Completion
from openai_shim.generation.choices import ChoiceEvent
from openai_shim.http.context import Operation, RequestAccount


def account_of(operation: Operation, completions: Sequence[Completion]) -> RequestAccount:
    return RequestAccount(
        operation,
        completions[0].model,
        tuple(dict.fromkeys(completion.device for completion in completions)),
        input_tokens=sum(completion.usage.prompt_tokens for completion in completions),
        output_tokens=sum(completion.usage.completion_tokens for completion in completions),
        queue_seconds=tuple(completion.queue_seconds for completion in completions),
    )


class StreamAccounting:
    """What is worth counting about the conversations of one request, from their events.

    pieces: of text, so far. account: None until the last one has finished.
    """

    def __init__(self, operation: Operation, started: ChatStarted, choices: int) -> None:
        self.pieces = 0
        self.account: RequestAccount | None = None
        self._operation = operation
        self._started = started
        self._choices = choices
        self._first_at: dict[int, float] = {}
        self._finished: list[ChatFinished] = []
        self._seconds_per_token: list[float] = []

    def see(self, event: ChoiceEvent | None) -> None:
        match event:
            case choice, ChatPiece():
                self.pieces += 1
                self._first_at.setdefault(choice, time.perf_counter())
            case choice, ChatFinished() as finished:
                self._see_end(choice, finished)

    def _see_end(self, choice: int, finished: ChatFinished) -> None:
        self._finished.append(finished)
        self._measure(choice, finished.usage.completion_tokens - 1)
        if len(self._finished) == self._choices:
            self.account = self._total()

    def _measure(self, choice: int, later_tokens: int) -> None:
        if choice in self._first_at and later_tokens > 0:
            seconds = time.perf_counter() - self._first_at[choice]
            self._seconds_per_token.append(seconds / later_tokens)

    def _total(self) -> RequestAccount:
        return RequestAccount(
            self._operation,
            self._started.model,
            (self._started.device,),
            input_tokens=sum(end.usage.prompt_tokens for end in self._finished),
            output_tokens=sum(end.usage.completion_tokens for end in self._finished),
            first_token_at=min(self._first_at.values(), default=None),
            seconds_per_token=tuple(self._seconds_per_token),
            queue_seconds=tuple(end.queue_seconds for end in self._finished),
        )
