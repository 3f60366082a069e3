"""Chooses the next token from the model's logits."""

import numpy as np
from numpy.typing import NDArray

from engine.chat.runtime import Logits
from engine.types import Sampling


class Sampler:
    """One per conversation, with its own source of randomness: what else runs cannot change its choices."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, logits: Logits) -> int:
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        tokens, weights = _nucleus(_softmax(logits / self._sampling.temperature), self._sampling.top_p)
        cumulative = weights.cumsum()
        # Rounding must not reach the total itself, which lies behind the last token.
        point = min(self._random.random() * cumulative[-1], np.nextafter(cumulative[-1], 0))
        return int(tokens[cumulative.searchsorted(point, side="right")])


def _softmax(logits: Logits) -> NDArray[np.float64]:
    exponentials = np.exp((logits - logits.max()).astype(np.float64))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum()
    return probabilities


def _nucleus(
    probabilities: NDArray[np.float64], top_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
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
