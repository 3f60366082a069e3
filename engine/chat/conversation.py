"""One request on its way from the prompt to the last piece of the answer."""

from collections.abc import Collection, Sequence

import numpy as np

from engine.chat.chat_messages import AnswerEvent
from engine.chat.grammar import Grammar
from engine.chat.runtimes.runtime import Logits
from engine.chat.sampling import Sampler, log_softmax
from engine.chat.speculation import PromptLookup
from engine.chat.stopping import StopFinder
from engine.chat.tools import CallReader
from engine.chat.vocabulary import TextStream, Vocabulary
from engine.errors import BadInput
from engine.types import (
    ChatFinished,
    ChatPiece,
    ChatToolCall,
    ChosenLogprob,
    FinishReason,
    Sampling,
    TokenLogprob,
    Usage,
)


class Conversation:
    """tokens: the prompt and what has been generated since, the token that ends the answer included.

    limit: the most tokens it may ever have. arrived_at: when it got in line, by the scheduler's clock.
    """

    def __init__(
        self,
        request_id: int,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        context_tokens: int,
        answer_tokens: int,
        vocabulary: Vocabulary,
        end_tokens: Collection[int],
        grammar: Grammar | None = None,
        reads_calls: bool = False,
        speculates: bool = False,
    ) -> None:
        """answer_tokens: the most, if sampling does not say. Raises BadInput."""
        if unknown := [token for token, _ in sampling.logit_bias if token not in vocabulary]:
            raise BadInput(f"This model has no token {unknown[0]} to bias.", field="logit_bias")
        self.request_id = request_id
        self.tokens = list(prompt)
        wanted = answer_tokens if sampling.max_tokens is None else sampling.max_tokens
        self.limit = min(len(prompt) + wanted, context_tokens)
        self.arrived_at = 0.0
        self.cached_tokens: int | None = None
        self.finished = False
        self._queue_seconds = 0.0
        self._prompt_tokens = len(prompt)
        self._vocabulary = vocabulary
        self._end_tokens = end_tokens
        self._grammar = grammar
        self._sampler = Sampler(sampling, prompt)
        self._lookup = PromptLookup() if speculates else None
        self._text = TextStream(vocabulary)
        self._calls = CallReader() if reads_calls else None
        self._stops = StopFinder(sampling.stop)
        self._top_logprobs = sampling.top_logprobs
        self._untold: list[ChosenLogprob] = []  # of tokens whose text has not been released yet

    def begin(self, cached_tokens: int, queue_seconds: float) -> None:
        """It has got a place. cached_tokens: of the prompt, that need not be read again."""
        self.cached_tokens = cached_tokens
        self._queue_seconds = queue_seconds

    def draft(self) -> tuple[int, ...]:
        """A guess at the next tokens, short enough to leave room for the one that the model adds."""
        most = self.limit - len(self.tokens) - 1
        return self._lookup.draft(self.tokens, most) if self._lookup else ()

    def advance(self, logits: Logits) -> list[AnswerEvent]:
        """Choose the next token; what its caller gets to see of it, if anything yet. Raises EngineError."""
        token = self._choose(logits)
        self.tokens.append(token)
        if token in self._end_tokens:
            return self._end("stop")
        if self._top_logprobs is not None:
            self._untold.append(self._logprob(token, logits, self._top_logprobs))
        text = self._text.feed(token)
        released = self._stops.feed(self._calls.feed(text) if self._calls else text)
        if released.stopped:
            return self._finish("stop", released.text)
        if self._grammar and self._grammar.complete:
            return self._end("stop", released.text)
        if len(self.tokens) == self.limit:
            return self._end("length", released.text)
        return self._piece(released.text)

    def _choose(self, logits: Logits) -> int:
        if self._grammar is None:
            return self._sampler.choose(logits)
        token = self._sampler.choose(self._grammar.masked(logits))
        self._grammar.accept(token)
        return token

    def _end(self, reason: FinishReason, text: str = "") -> list[AnswerEvent]:
        """No more tokens come: what was held back is released, unless it is a stop string."""
        last = self._stops.feed(self._calls.flush() if self._calls else "")
        held = "" if last.stopped else self._stops.flush()
        return self._finish(reason, text + last.text + held)

    def _finish(self, reason: FinishReason, text: str) -> list[AnswerEvent]:
        self.finished = True
        calls, unfinished = self._calls.calls() if self._calls else ([], "")
        if calls and reason == "stop":
            reason = "tool_calls"
        usage = Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self.tokens) - self._prompt_tokens,
            cached_tokens=self.cached_tokens or 0,
        )
        finished = ChatFinished(reason, usage, self._queue_seconds)
        return [*self._piece(text + unfinished), *map(ChatToolCall, calls), finished]

    def _piece(self, text: str) -> list[AnswerEvent]:
        if not text and not (self.finished and self._untold):
            return []
        logprobs, self._untold = tuple(self._untold), []
        return [ChatPiece(text, logprobs)]

    def _logprob(self, token: int, logits: Logits, top: int) -> ChosenLogprob:
        logprobs = log_softmax(logits)
        most_likely = np.argpartition(-logprobs, top)[:top]
        ordered = most_likely[np.argsort(-logprobs[most_likely], kind="stable")]
        return ChosenLogprob(
            TokenLogprob(self._vocabulary.name_of(token), float(logprobs[token])),
            tuple(TokenLogprob(self._vocabulary.name_of(int(t)), float(logprobs[t])) for t in ordered),
        )
