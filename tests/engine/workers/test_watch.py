"""How a worker that hangs is told from one that is slow, in made-up seconds."""

from collections.abc import Iterable

import pytest

from engine.workers.watch import Debt, Watch


def verdict(debt: Debt | None, looks: Iterable[tuple[float, float]]) -> str | None:
    """The first verdict; looks: seconds since the last one, and processor time used meanwhile."""
    watch = Watch()
    watch.look(0.0, 0.0)
    if debt:
        watch.owes("answer", debt)
    now = used = 0.0
    for seconds, cpu_seconds in looks:
        now, used = now + seconds, used + cpu_seconds
        if found := watch.look(now, used):
            return found
    return None


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        ([(1, 0.0)] * 9, None),
        ([(1, 0.0)] * 10, "it stood still for 10 s"),
        ([(1, 0.001)] * 10, "it stood still for 10 s"),
        ([(1, 1.0)] * 29, None),
        ([(1, 1.0)] * 30, "it gave no answer for 30 s of work"),
        ([(1, 2.0)] * 30, "it gave no answer for 30 s of work"),
        ([(1, 0.05)] * 500, None),
        ([(3600, 0.0)], None),
    ],
    ids=["short", "stopped", "waiting", "busy", "endless", "two cores", "starved", "asleep"],
)
def test_a_worker_that_owes_an_answer_is_judged_by_the_processor_time_it_uses(
    looks: list[tuple[float, float]], found: str | None
) -> None:
    assert verdict(Debt(allowed_seconds=30), looks) == found


def test_a_worker_that_owes_nothing_may_rest_for_ever() -> None:
    assert verdict(None, [(1, 0.0)] * 1000) is None


def test_what_is_paid_is_forgotten() -> None:
    watch = Watch()
    for second in range(100):
        watch.owes(second, Debt(allowed_seconds=5))
        assert watch.look(second, second) is None
        watch.paid(second)
