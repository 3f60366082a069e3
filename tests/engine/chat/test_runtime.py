"""The genai runtime on SmolLM2, without a scheduler."""

from pathlib import Path

import numpy as np
import pytest

from engine.chat.runtimes.genai import GenaiRuntime, GenaiSequence
from engine.chat.runtimes.runtime import Advanced, Logits, OutOfMemory, SequenceWork

TOKENS = [1 + n % 5000 for n in range(17, 17 + 310)]
TOKEN_BYTES = 2 * 30 * 3 * 64 * 4  # keys and values, layers, heads, head size, float32


@pytest.fixture(scope="module")
def runtime(smollm2_folder: Path) -> GenaiRuntime:
    """Memory for one whole context and a large part of another."""
    return GenaiRuntime(smollm2_folder, threads=2, context_tokens=600, kv_bytes=1100 * TOKEN_BYTES)


def opened(runtime: GenaiRuntime, tokens: list[int], limit: int) -> GenaiSequence:
    sequence = runtime.open(tokens, limit)
    assert sequence
    return sequence


def read_all(runtime: GenaiRuntime, sequence: GenaiSequence, slice_tokens: int = 64) -> Logits:
    while True:
        (outcome,) = runtime.advance([SequenceWork(sequence, slice_tokens)])
        assert isinstance(outcome, Advanced)
        if outcome.logits:
            return outcome.logits[-1]


def test_slices_of_any_size_lead_to_the_same_logits(runtime: GenaiRuntime) -> None:
    at_once = opened(runtime, TOKENS, 600)
    in_slices = opened(runtime, TOKENS, 400)

    difference = read_all(runtime, at_once, 600) - read_all(runtime, in_slices, 32)

    assert np.abs(difference).max() < 0.01
    runtime.close(at_once)
    runtime.close(in_slices)


def test_a_conversation_that_outgrows_its_memory_goes_on_in_a_larger_one(runtime: GenaiRuntime) -> None:
    roomy = opened(runtime, [5], 600)
    tight = opened(runtime, TOKENS[:10], 400)
    first_cache = tight.cache
    read_all(runtime, tight)
    for token in TOKENS[10:]:
        tight.append(token)

    logits = read_all(runtime, tight)

    assert first_cache.capacity < len(TOKENS) < tight.cache.capacity
    runtime.close(roomy)
    fresh = opened(runtime, TOKENS, 400)
    assert (read_all(runtime, fresh) == logits).all()
    runtime.close(tight)
    runtime.close(fresh)


def test_without_memory_to_grow_a_conversation_is_closed_and_can_be_opened_again_later(
    runtime: GenaiRuntime,
) -> None:
    roomy = opened(runtime, [5], 600)
    tight = opened(runtime, TOKENS[:10], 600)
    read_all(runtime, tight)
    for token in TOKENS[10:]:
        tight.append(token)

    assert list(runtime.advance([SequenceWork(tight, 64)])) == [OutOfMemory(tight)]
    assert runtime.open(TOKENS, 600) is None

    runtime.close(roomy)
    again = opened(runtime, TOKENS, 600)
    assert again.cached_tokens == 0
    runtime.close(again)


def test_a_new_turn_reads_only_what_is_new(runtime: GenaiRuntime) -> None:
    first = opened(runtime, TOKENS[:200], 600)
    read_all(runtime, first)
    runtime.close(first)

    second = opened(runtime, [*TOKENS[:190], 7, 8, 9], 600)

    assert (second.cached_tokens, second.unread) == (190, 3)
    runtime.close(second)
