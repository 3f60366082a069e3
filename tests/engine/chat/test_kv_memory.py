"""Which cache a new prompt gets."""

from dataclasses import dataclass, field

import pytest

from engine.chat.runtimes.kv_memory import KvMemory, common_prefix


@dataclass
class Cache:
    capacity: int
    tokens: list[int] = field(default_factory=list)
    released: bool = False

    def rewind(self, length: int) -> None:
        del self.tokens[length:]

    def release(self) -> None:
        self.released = True


def rested(memory: KvMemory[Cache], tokens: list[int], capacity: int) -> Cache:
    cache = memory.take(tokens, [capacity])
    assert cache
    cache.tokens[:] = tokens
    memory.rest(cache)
    return cache


def test_a_new_turn_gets_the_cache_of_its_conversation_rewound_to_what_they_share() -> None:
    memory = KvMemory(100, Cache)
    rested(memory, [9, 9, 9], 20)
    ours = rested(memory, [1, 2, 3, 4], 20)

    cache = memory.take([1, 2, 3, 7, 8], [20])

    assert cache is ours
    assert cache.tokens == [1, 2, 3]


def test_a_known_prompt_is_rewound_by_one_token_which_must_be_read_for_its_logits() -> None:
    memory = KvMemory(100, Cache)
    ours = rested(memory, [1, 2, 3], 20)

    cache = memory.take([1, 2, 3], [20])

    assert cache is ours
    assert cache.tokens == [1, 2]


def test_a_long_conversation_is_not_spoiled_for_a_short_common_beginning() -> None:
    memory = KvMemory(100, Cache)
    theirs = rested(memory, [1, 2, 3, 4, 5, 6], 20)

    cache = memory.take([1, 2, 8], [20])

    assert cache is not theirs
    assert theirs.tokens == [1, 2, 3, 4, 5, 6]


def test_a_cache_in_use_is_not_given_away() -> None:
    memory = KvMemory(100, Cache)
    first = memory.take([1, 2, 3], [20])

    assert memory.take([1, 2, 3], [20]) is not first


def test_what_rested_longest_makes_room_first() -> None:
    memory = KvMemory(50, Cache)
    oldest, newest = rested(memory, [1, 1], 20), rested(memory, [2, 2], 20)

    memory.take([3, 3], [20])

    assert (oldest.released, newest.released) == (True, False)


def test_when_memory_is_short_the_lesser_capacity_must_do() -> None:
    memory = KvMemory(50, Cache)
    memory.take([1], [30])

    assert memory.take([2], [40, 20]) == Cache(20)


def test_there_is_no_cache_while_others_use_the_memory() -> None:
    memory = KvMemory(50, Cache)
    first = memory.take([1], [40])
    assert first

    assert memory.take([2], [20]) is None

    memory.drop(first)
    assert memory.take([2], [20]) == Cache(20)


def test_a_cache_that_cannot_be_rewound_is_dropped() -> None:
    class Stuck(Cache):
        def rewind(self, length: int) -> None:
            raise RuntimeError("stuck")

    memory = KvMemory(50, Stuck)
    cache = memory.take([1, 2], [40])
    assert cache
    cache.tokens[:] = [1, 2]
    memory.rest(cache)

    with pytest.raises(RuntimeError, match="stuck"):
        memory.take([1, 2, 3], [40])

    assert cache.released
    assert memory.take([1], [50]) is not None


def test_common_prefix() -> None:
    assert [common_prefix([1, 2, 3], other) for other in ([1, 2, 4], [1], [], [2])] == [2, 1, 0, 0]
