"""The choice of the next token."""

from collections import Counter

import numpy as np
import pytest

from engine.chat.sampling import Sampler
from engine.types import Sampling

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], dtype=np.float32))


def frequencies(draws: int = 4000, **sampling) -> dict[int, float]:
    sampler = Sampler(Sampling(seed=1, **sampling))
    counts = Counter(sampler.choose(LOGITS) for _ in range(draws))
    return {token: pytest.approx(count / draws, abs=0.03) for token, count in counts.items()}


def test_temperature_0_takes_the_most_likely_token():
    assert Sampler(Sampling(temperature=0)).choose(LOGITS) == 1


def test_temperature_1_follows_the_probabilities():
    assert frequencies(temperature=1) == {0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}


def test_a_low_temperature_sharpens_the_probabilities():
    squares = np.array([0.1, 0.4, 0.2, 0.3]) ** 2

    assert frequencies(temperature=0.5) == dict(enumerate(squares / squares.sum()))


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    assert frequencies(temperature=1, top_p=0.65) == {1: 4 / 7, 3: 3 / 7}


def test_a_tiny_top_p_is_greedy():
    assert frequencies(temperature=1, top_p=1e-9) == {1: 1.0}


def test_the_same_seed_draws_the_same_tokens():
    one, other = (Sampler(Sampling(seed=5)) for _ in range(2))

    assert [one.choose(LOGITS) for _ in range(50)] == [other.choose(LOGITS) for _ in range(50)]


def test_without_a_seed_the_draws_differ():
    one, other = (Sampler(Sampling()) for _ in range(2))

    assert [one.choose(LOGITS) for _ in range(50)] != [other.choose(LOGITS) for _ in range(50)]


def test_impossible_tokens_are_never_drawn():
    logits = np.full(1000, -np.inf, dtype=np.float32)
    logits[[3, 500]] = 0
    sampler = Sampler(Sampling(seed=1))

    assert {sampler.choose(logits) for _ in range(200)} == {3, 500}
