import numpy as np

from engine.embedding.cache import ENTRY_OVERHEAD_BYTES, VectorCache

VECTOR = np.ones(4, np.float32)
ENTRY_BYTES = 4 + VECTOR.nbytes + ENTRY_OVERHEAD_BYTES


def ids(number: int) -> np.ndarray:
    return np.array([number], np.int32)


def test_what_was_put_is_found_with_the_device_that_computed_it() -> None:
    cache = VectorCache(10 * ENTRY_BYTES)
    cache.put(ids(1), VECTOR, "npu")

    found = cache.get(ids(1))

    assert found is not None
    assert (found.vector.tolist(), found.device) == (VECTOR.tolist(), "npu")
    assert (cache.hits, cache.misses) == (1, 0)


def test_the_vector_asked_for_longest_ago_goes_first() -> None:
    cache = VectorCache(2 * ENTRY_BYTES)
    cache.put(ids(1), VECTOR, "cpu")
    cache.put(ids(2), VECTOR, "cpu")
    cache.get(ids(1))
    cache.put(ids(3), VECTOR, "cpu")

    assert [cache.get(ids(n)) is not None for n in (1, 2, 3)] == [True, False, True]


def test_a_capacity_of_zero_keeps_nothing() -> None:
    cache = VectorCache(0)
    cache.put(ids(1), VECTOR, "cpu")

    assert cache.get(ids(1)) is None


def test_a_kept_vector_does_not_change_with_the_batch_it_came_from() -> None:
    cache = VectorCache(10 * ENTRY_BYTES)
    batch = np.ones((2, 4), np.float32)
    cache.put(ids(1), batch[0], "cpu")
    batch[:] = 0

    found = cache.get(ids(1))

    assert found is not None
    assert found.vector.tolist() == [1.0] * 4
