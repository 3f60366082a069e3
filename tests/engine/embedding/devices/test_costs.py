"""What a device is expected to take, and what its runs teach."""

import pytest

from engine.embedding.devices.costs import LEAST_CORRECTION, MOST_CORRECTION, Cost, CostTable


def test_runs_that_take_longer_than_expected_raise_what_is_expected() -> None:
    table = CostTable({32: Cost(0.003, 0.001)})
    for _ in range(100):
        expected = table.batch_seconds([10], chat_active=False)
        table.learn(expected, 0.006, chat_active=False)

    assert table.batch_seconds([10], chat_active=False) == pytest.approx(0.006, rel=0.01)


def test_what_is_learned_while_chat_decodes_does_not_count_when_it_does_not() -> None:
    table = CostTable({32: Cost(0.003, 0.001)})
    table.learn(0.003, 0.3, chat_active=True)

    assert table.batch_seconds([10], chat_active=False) == 0.003
    assert table.batch_seconds([10], chat_active=True) > 0.003


@pytest.mark.parametrize("seconds", [0.0, -0.1])
def test_a_run_that_took_no_time_teaches_nothing(seconds: float) -> None:
    """Nothing does: the clock was too coarse, or was set."""
    table = CostTable({32: Cost(0.003, 0.001)})
    table.learn(0.003, seconds, chat_active=False)

    assert table.batch_seconds([10], chat_active=False) == 0.003


@pytest.mark.parametrize(("seconds", "bound"), [(1e-9, LEAST_CORRECTION), (1e9, MOST_CORRECTION)])
def test_what_is_learned_stays_in_bounds(seconds: float, bound: float) -> None:
    table = CostTable({32: Cost(0.003, 0.001)})
    for _ in range(100):
        table.learn(0.003, seconds, chat_active=False)

    assert table.batch_seconds([10], chat_active=False) == pytest.approx(0.003 * bound)
