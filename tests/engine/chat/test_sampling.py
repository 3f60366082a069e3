"""The choice of the next token."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from engine.chat.sampling import Sampler
from engine.types import Sampling

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], dtype=np.float32))


def frequencies(draws: int = 4000, **sampling: Any) -> dict[int, Any]:
    sampler = Sampler(Sampling(seed=1, **sampling), prompt=[])
    counts = Counter(sampler.choose(LOGITS) for _ in range(draws))
    return {token: pytest.approx(count / draws, abs=0.03) for token, count in counts.items()}


def test_temperature_0_takes_the_most_likely_token() -> None:
    assert Sampler(Sampling(temperature=0), []).choose(LOGITS) == 1


def test_temperature_1_follows_the_probabilities() -> None:
    assert frequencies(temperature=1) == {0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}


def test_a_low_temperature_sharpens_the_probabilities() -> None:
    squares = np.array([0.1, 0.4, 0.2, 0.3]) ** 2

    assert frequencies(temperature=0.5) == dict(enumerate(squares / squares.sum()))


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    assert frequencies(temperature=1, top_p=0.65) == {1: 4 / 7, 3: 3 / 7}


def test_a_tiny_top_p_is_greedy() -> None:
    assert frequencies(temperature=1, top_p=1e-9) == {1: 1.0}


def test_top_k_keeps_the_most_likely_tokens() -> None:
    assert frequencies(temperature=1, top_k=2) == {1: 4 / 7, 3: 3 / 7}


def test_top_k_beyond_the_vocabulary_keeps_all() -> None:
    assert frequencies(temperature=1, top_k=99) == {0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest() -> None:
    assert frequencies(temperature=1, min_p=0.6) == {1: 4 / 7, 3: 3 / 7}


def test_top_p_counts_what_top_k_has_left() -> None:
    """4/9 + 3/9 of the three most likely reach 0.75; of all four tokens, 0.4 + 0.3 would not."""
    assert frequencies(temperature=1, top_k=3, top_p=0.75) == {1: 4 / 7, 3: 3 / 7}


def test_logit_bias_moves_a_token() -> None:
    assert frequencies(temperature=1, logit_bias=((0, 100.0), (1, -100.0))) == {0: 1.0}


def greedy(logits: list[float], tokens: int, prompt: tuple[int, ...] = (), **sampling: Any) -> list[int]:
    sampler = Sampler(Sampling(temperature=0, **sampling), prompt)
    return [sampler.choose(np.array(logits, dtype=np.float32)) for _ in range(tokens)]


def test_presence_penalty_counts_once() -> None:
    assert greedy([1.0, 0.6], 4, presence_penalty=0.5) == [0, 1, 0, 0]


def test_frequency_penalty_counts_every_time() -> None:
    assert greedy([1.0, 0.2], 4, frequency_penalty=0.5) == [0, 0, 1, 0]


def test_presence_and_frequency_penalties_do_not_count_the_prompt() -> None:
    assert greedy([1.0, 0.9], 1, prompt=(0,), presence_penalty=0.5, frequency_penalty=0.5) == [0]


def test_repetition_penalty_counts_the_prompt_and_weakens_negative_logits_too() -> None:
    assert greedy([1.0, 0.9], 1, prompt=(0,), repetition_penalty=1.5) == [1]
    assert greedy([-1.0, -1.1], 1, prompt=(0,), repetition_penalty=1.5) == [1]


@pytest.mark.parametrize("least", [1e-40, 5e-324], ids=["beyond float32", "the least there is"])
def test_the_tiniest_settings_still_choose_a_token(least: float) -> None:
    """They are valid, and arithmetic without an end would take every conversation of the model with it."""
    assert frequencies(draws=9, temperature=least) == {1: 1.0}
    assert greedy([1.0, 2.0, -3.0], 2, prompt=(0,), repetition_penalty=least) == [0, 0]
    assert set(frequencies(draws=9, temperature=1, repetition_penalty=least)) <= {0, 1, 2, 3}


def test_choosing_leaves_the_logits_as_they_were() -> None:
    logits = LOGITS.copy()

    Sampler(Sampling(logit_bias=((0, 5.0),), repetition_penalty=2), [1]).choose(logits)

    assert (logits == LOGITS).all()


@pytest.mark.parametrize("seed", [5, 0, -(2**63), 2**63 - 1])
def test_the_same_seed_draws_the_same_tokens(seed: int) -> None:
    one, other = (Sampler(Sampling(seed=seed), []) for _ in range(2))

    assert [one.choose(LOGITS) for _ in range(50)] == [other.choose(LOGITS) for _ in range(50)]


def test_without_a_seed_the_draws_differ() -> None:
    one, other = (Sampler(Sampling(), []) for _ in range(2))

    assert [one.choose(LOGITS) for _ in range(50)] != [other.choose(LOGITS) for _ in range(50)]


def test_impossible_tokens_are_never_drawn() -> None:
    logits = np.full(1000, -np.inf, dtype=np.float32)
    logits[[3, 500]] = 0
    sampler = Sampler(Sampling(seed=1), [])

    assert {sampler.choose(logits) for _ in range(200)} == {3, 500}
