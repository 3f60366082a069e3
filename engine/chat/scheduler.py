"""Decides which conversation advances when.

    submit -> waiting -> active: reading its prompt -> active: answering -> finished
                 ^                     ^                     |
                 |                     +-- outgrew its KV memory, read again
                 +-------------------------- no KV memory left, waits for others to end

Each step lets every answering conversation have one token and one reading conversation have one slice of its
prompt. So all advance alike, and neither a long prompt nor a long answer keeps the others waiting.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from engine.chat.chat_messages import Ended, FromChatWorker, Happened
from engine.chat.conversation import Conversation
from engine.chat.runtimes.runtime import (
    Advanced,
    Logits,
    OutOfMemory,
    Runtime,
    SequenceFailed,
    SequenceWork,
    TokenSequence,
)
from engine.chat.turnover import Turnover
from engine.errors import EngineError, Overloaded


class Scheduler:
    """Not thread-safe: submit, cancel and step are called by turns.

    most_wait_seconds: whoever would have to wait longer for a place is told so at once; and whoever has
    waited twice as long all the same, then.
    slice_tokens: how much of one prompt is read in one step; the same for every step of every prompt, because
    the last digits of the logits depend on it, and the same request should get the same answer.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        max_active: int = 8,
        max_waiting: int = 64,
        slice_tokens: int = 64,
        most_wait_seconds: float = math.inf,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runtime = runtime
        self._most_wait_seconds = most_wait_seconds
        self._clock = clock
        self._turnover = Turnover(clock)
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._slice_tokens = slice_tokens
        self._waiting: deque[Conversation] = deque()
        self._active: dict[TokenSequence, Conversation] = {}  # who waited longest for a slice comes first

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._active

    def submit(self, conversation: Conversation) -> None:
        """Raises Overloaded."""
        ahead = len(self._waiting)
        full = ahead or len(self._active) >= self._max_active
        seconds = self._turnover.wait_seconds(ahead) if full else 0.0
        if ahead >= self._max_waiting or seconds > self._most_wait_seconds:
            raise _overloaded(ahead, seconds)
        conversation.arrived_at = self._clock()
        self._waiting.append(conversation)

    def cancel(self, request_id: int) -> None:
        """Its place is free for the next step. An unknown id is that of one that has just ended."""
        self._waiting = deque(c for c in self._waiting if c.request_id != request_id)
        for sequence in [s for s, c in self._active.items() if c.request_id == request_id]:
            self._runtime.close(sequence)
            del self._active[sequence]
        self._turnover.ended(request_id)

    def step(self) -> Iterator[FromChatWorker]:
        if self._waiting:
            yield from self._admit()
        for outcome in self._runtime.advance(self._next_work()):
            match outcome:
                case Advanced(sequence, logits):
                    if logits:
                        yield from self._answer(sequence, logits)
                case OutOfMemory(sequence):
                    self._waiting.appendleft(self._active.pop(sequence))
                case SequenceFailed(sequence, error):
                    request_id = self._active.pop(sequence).request_id
                    self._turnover.ended(request_id)
                    yield Ended(request_id, error)

    def _admit(self) -> Iterator[FromChatWorker]:
        """First come, first served: nobody overtakes a long conversation that waits for memory."""
        yield from self._dismiss()
        while self._waiting and len(self._active) < self._max_active:
            conversation = self._waiting[0]
            try:
                sequence = self._runtime.open(conversation.tokens, conversation.limit)
            except EngineError as error:
                self._waiting.popleft()
                yield Ended(conversation.request_id, error)
                continue
            if sequence is None:
                assert self._active, "the runtime has no memory for a single conversation"
                return
            if conversation.cached_tokens is None:
                conversation.begin(sequence.cached_tokens, self._clock() - conversation.arrived_at)
            self._turnover.began(conversation.request_id)
            self._active[sequence] = self._waiting.popleft()

    def _dismiss(self) -> Iterator[FromChatWorker]:
        """Those who have waited for so long that their callers have given up, or should."""
        latest = self._clock() - 2 * self._most_wait_seconds
        late = [c for c in self._waiting if c.cached_tokens is None and c.arrived_at < latest]
        for conversation in late:
            self._waiting.remove(conversation)
            waited = self._clock() - conversation.arrived_at
            yield Ended(conversation.request_id, _overloaded(len(self._waiting), waited))

    def _next_work(self) -> list[SequenceWork]:
        work, reading = [], None
        for sequence, conversation in self._active.items():
            if sequence.unread == 1:
                work.append(SequenceWork(sequence, 1, conversation.draft()))
            elif reading is None:
                reading = sequence
        if reading is not None:
            self._active[reading] = self._active.pop(reading)  # to the end of the line
            work.append(SequenceWork(reading, self._slice_tokens))
        return work

    def _answer(self, sequence: TokenSequence, logits: Sequence[Logits]) -> Iterator[FromChatWorker]:
        conversation = self._active[sequence]
        try:
            for token_logits in logits:
                for event in conversation.advance(token_logits):
                    yield Happened(conversation.request_id, event)
                if conversation.finished:
                    break
                sequence.append(conversation.tokens[-1])
                if sequence.unread:  # this is not the token that the draft went on with
                    break
        except EngineError as error:
            conversation.finished = True
            yield Ended(conversation.request_id, error)
        if conversation.finished:
            self._runtime.close(sequence)
            del self._active[sequence]
            self._turnover.ended(conversation.request_id)


def _overloaded(ahead: int, seconds: float) -> Overloaded:
    return Overloaded(
        f"{ahead} conversations wait for the chat model already, which takes about {seconds:.0f} s; "
        "try again later.",
        retry_after_seconds=max(seconds, 5.0),
    )
