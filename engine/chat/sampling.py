"""Chooses the next token from the model's logits.

    logits -> bias, penalties -> temperature -> top_k, min_p, top_p -> draw

The order of vLLM, so that the same settings mean the same here.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.chat.runtimes.runtime import Logits
from engine.types import Sampling

Probabilities = NDArray[np.float64]


class Sampler:
    """One per conversation, with its own source of randomness: what else runs cannot change its choices.

    Every logit_bias token must be in the vocabulary.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        # numpy refuses negative seeds, which OpenAI allows
        self._random = np.random.default_rng(None if sampling.seed is None else sampling.seed % 2**64)
        self._generated: dict[int, int] = {}  # token -> how often
        self._seen = dict.fromkeys(prompt) if sampling.repetition_penalty != 1 else {}

    def choose(self, logits: Logits) -> int:
        token = self._draw(self._adjusted(logits))
        self._generated[token] = self._generated.get(token, 0) + 1
        if self._sampling.repetition_penalty != 1:
            self._seen[token] = None
        return token

    def _adjusted(self, logits: Logits) -> Logits:
        """The logits after bias and penalties; the argument stays as it is."""
        wanted = self._sampling
        adjusted = logits.copy()
        for token, bias in wanted.logit_bias:
            adjusted[token] += bias
        if self._seen:
            seen = np.fromiter(self._seen, dtype=np.intp)
            adjusted[seen] = _penalised(adjusted[seen], wanted.repetition_penalty)
        if self._generated and (wanted.presence_penalty or wanted.frequency_penalty):
            tokens = np.fromiter(self._generated, dtype=np.intp)
            counts = np.fromiter(self._generated.values(), dtype=np.float32)
            adjusted[tokens] -= wanted.presence_penalty + wanted.frequency_penalty * counts
        return adjusted

    def _draw(self, logits: Logits) -> int:
        wanted = self._sampling
        if wanted.temperature == 0:
            return int(logits.argmax())
        # From the largest down: divided by a tiny temperature, it stays 0 and the others become -infinity.
        with np.errstate(over="ignore"):
            sharpened = (logits - logits.max()).astype(np.float64) / wanted.temperature
        probabilities = _likely(_softmax(sharpened), wanted.top_k, wanted.min_p)
        tokens, weights = _nucleus(probabilities, wanted.top_p)
        cumulative = weights.cumsum()
        # Rounding must not reach the total itself, which lies behind the last token.
        point = min(self._random.random() * cumulative[-1], np.nextafter(cumulative[-1], 0))
        return int(tokens[cumulative.searchsorted(point, side="right")])


def _penalised(logits: Logits, penalty: float) -> Logits:
    """No logit may become infinite: what divides by 1e-40 wants its tokens at any price, and gets them."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        weakened = np.where(logits > 0, logits / penalty, logits * penalty)
    finite: Logits = np.minimum(weakened, np.finfo(logits.dtype).max)
    return finite


def log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max()
    log_probabilities: Logits = shifted - np.log(np.exp(shifted).sum())
    return log_probabilities


def _softmax(logits: Probabilities) -> Probabilities:
    exponentials = np.exp(logits - logits.max())
    probabilities: Probabilities = exponentials / exponentials.sum()
    return probabilities


def _likely(probabilities: Probabilities, top_k: int | None, min_p: float) -> Probabilities:
    """Zero for all but the top_k tokens, and for those less likely than min_p times the likeliest one."""
    least = min_p * probabilities.max()
    if top_k is not None and top_k < probabilities.size:
        least = max(least, np.partition(probabilities, -top_k)[-top_k])
    if least == 0:
        return probabilities
    kept = np.where(probabilities >= least, probabilities, 0.0)
    likely: Probabilities = kept / kept.sum()
    return likely


def _nucleus(probabilities: Probabilities, top_p: float) -> tuple[NDArray[np.intp], Probabilities]:
    """The fewest tokens that together have at least probability top_p (Holtzman et al. 2020).

    Sorting the whole vocabulary would take as long as a decode step of a small model (3 ms for 49,152
    tokens). All tokens below (1 - top_p) / vocabulary together have less than 1 - top_p, so none of them is
    in the nucleus, and only the few others need sorting.
    """
    if top_p >= 1:
        return np.arange(probabilities.size), probabilities
    candidates = np.flatnonzero(probabilities >= (1 - top_p) / probabilities.size)
    order = candidates[np.argsort(-probabilities[candidates], kind="stable")]
    size = int(probabilities[order].cumsum().searchsorted(top_p)) + 1
    return order[:size], probabilities[order[:size]]
