"""One request on its way from the prompt to the last piece of the answer."""

from collections.abc import Collection, Sequence

from engine.chat.messages import Finished, Piece, Reply
from engine.chat.runtime import Logits
from engine.chat.sampling import Sampler
from engine.chat.stopping import StopFinder
from engine.chat.vocabulary import TextStream, Vocabulary
from engine.types import FinishReason, Sampling, Usage


class Conversation:
    """tokens: the prompt and what has been generated since, the token that ends the answer included.

    limit: the most tokens it may ever have.
    """

    def __init__(
        self,
        request_id: int,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        context_tokens: int,
        vocabulary: Vocabulary,
        end_tokens: Collection[int],
    ) -> None:
        self.request_id = request_id
        self.tokens = list(prompt)
        wanted = context_tokens if sampling.max_tokens is None else len(prompt) + sampling.max_tokens
        self.limit = min(wanted, context_tokens)
        self.cached_tokens: int | None = None
        self.finished = False
        self._prompt_tokens = len(prompt)
        self._end_tokens = end_tokens
        self._sampler = Sampler(sampling)
        self._text = TextStream(vocabulary)
        self._stops = StopFinder(sampling.stop)

    def advance(self, logits: Logits) -> list[Reply]:
        """Choose the next token; what its caller gets to see of it, if anything yet."""
        token = self._sampler.choose(logits)
        self.tokens.append(token)
        if token in self._end_tokens:
            return self._finish("stop", self._stops.flush())
        released = self._stops.feed(self._text.feed(token))
        if released.stopped:
            return self._finish("stop", released.text)
        if len(self.tokens) == self.limit:
            return self._finish("length", released.text + self._stops.flush())
        return self._piece(released.text)

    def _finish(self, reason: FinishReason, text: str) -> list[Reply]:
        self.finished = True
        usage = Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self.tokens) - self._prompt_tokens,
            cached_tokens=self.cached_tokens or 0,
        )
        return [*self._piece(text), Finished(self.request_id, reason, usage)]

    def _piece(self, text: str) -> list[Reply]:
        return [Piece(self.request_id, text)] if text else []
