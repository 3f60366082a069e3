"""Who advances when, on a runtime that writes down what it was asked to do."""

import pytest

from engine.chat.runtimes.runtime import Logits
from engine.chat.scheduler import Scheduler
from engine.errors import EngineError, Overloaded
from engine.types import ChatEvent, ChatFinished, ChatPiece, Usage
from tests.engine.chat.fakes import FakeRuntime, conversation
from tests.engine.chat.seen import Seens, of, only, seen, text_of, whose


def run(scheduler: Scheduler, most_steps: int = 1000) -> Seens:
    """Step until nothing is left to do."""
    replies: Seens = []
    for _ in range(most_steps):
        if scheduler.idle:
            return replies
        replies += map(seen, scheduler.step())
    raise AssertionError(f"not idle after {most_steps} steps")


def test_an_answer_arrives_token_by_token_and_ends_with_its_usage() -> None:
    scheduler = Scheduler(FakeRuntime())
    scheduler.submit(conversation(7, "ABC", max_tokens=3))

    replies = run(scheduler)

    assert replies == [
        (7, ChatPiece("D")),
        (7, ChatPiece("E")),
        (7, ChatPiece("F")),
        (7, ChatFinished("length", Usage(prompt_tokens=3, completion_tokens=3))),
    ]


def test_the_end_token_ends_the_answer_and_counts_as_generated() -> None:
    scheduler = Scheduler(FakeRuntime())
    scheduler.submit(conversation(1, "`a"))

    replies = run(scheduler)

    assert replies == [
        (1, ChatPiece("b")),
        (1, ChatFinished("stop", Usage(prompt_tokens=2, completion_tokens=2))),
    ]


def test_answers_advance_alike() -> None:
    runtime = FakeRuntime()
    scheduler = Scheduler(runtime)
    for request_id, prompt in enumerate("ABCDEFGH"):
        scheduler.submit(conversation(request_id, prompt, max_tokens=3))

    replies = run(scheduler)

    assert whose(ChatFinished, replies) == list(range(8))
    assert runtime.steps == [[(ord(prompt), 1) for prompt in "ABCDEFGH"]] * 3


def test_an_answer_has_a_token_for_each_slice_of_another_prompt() -> None:
    runtime = FakeRuntime()
    scheduler = Scheduler(runtime, slice_tokens=10)
    scheduler.submit(conversation(1, "A", max_tokens=4))
    scheduler.submit(conversation(2, "X" * 30, max_tokens=1))

    run(scheduler)

    assert runtime.steps == [
        [(ord("A"), 1), (ord("X"), 10)],
        [(ord("A"), 1), (ord("X"), 10)],
        [(ord("A"), 1), (ord("X"), 10)],
        [(ord("A"), 1)],
    ]


def test_a_short_prompt_is_answered_while_a_long_one_is_still_being_read() -> None:
    scheduler = Scheduler(FakeRuntime(), slice_tokens=10)
    scheduler.submit(conversation(1, "X" * 500, max_tokens=1))
    scheduler.submit(conversation(2, "ABC", max_tokens=2))

    replies = run(scheduler)

    assert whose(ChatFinished, replies) == [2, 1]


def test_long_prompts_are_read_by_turns() -> None:
    runtime = FakeRuntime()
    scheduler = Scheduler(runtime, slice_tokens=10)
    scheduler.submit(conversation(1, "X" * 20, max_tokens=1))
    scheduler.submit(conversation(2, "Y" * 20, max_tokens=1))

    run(scheduler)

    assert runtime.steps == [[(ord("X"), 10)], [(ord("Y"), 10)], [(ord("X"), 10)], [(ord("Y"), 10)]]


def test_whoever_finds_no_place_waits_for_the_first_to_end() -> None:
    scheduler = Scheduler(FakeRuntime(), max_active=2)
    for request_id in range(4):
        scheduler.submit(conversation(request_id, "A", max_tokens=request_id + 1))

    replies = run(scheduler)

    assert whose(ChatFinished, replies) == [0, 1, 2, 3]


def test_a_full_line_is_refused_at_once() -> None:
    scheduler = Scheduler(FakeRuntime(), max_waiting=2)
    scheduler.submit(conversation(1, "A"))
    scheduler.submit(conversation(2, "A"))

    with pytest.raises(Overloaded, match="2 conversations wait"):
        scheduler.submit(conversation(3, "A"))


@pytest.mark.parametrize("steps_before", [0, 1, 5], ids=["waiting", "reading", "answering"])
def test_cancelling_frees_the_place_for_the_next_step(steps_before: int) -> None:
    runtime = FakeRuntime()
    scheduler = Scheduler(runtime, max_active=1, slice_tokens=10)
    scheduler.submit(conversation(1, "X" * 30))
    scheduler.submit(conversation(2, "A", max_tokens=1))
    for _ in range(steps_before):
        list(scheduler.step())

    scheduler.cancel(1)
    replies = list(map(seen, scheduler.step()))

    assert replies == [
        (2, ChatPiece("B")),
        (2, ChatFinished("length", Usage(prompt_tokens=1, completion_tokens=1))),
    ]
    assert runtime.open_sequences == []


def test_cancelling_an_unknown_request_changes_nothing() -> None:
    scheduler = Scheduler(FakeRuntime())
    scheduler.submit(conversation(1, "A", max_tokens=1))

    scheduler.cancel(2)

    assert text_of(1, run(scheduler)) == "B"


def test_a_failing_sequence_ends_alone() -> None:
    scheduler = Scheduler(FakeRuntime(fail_on=ord("!")))
    scheduler.submit(conversation(1, "A", max_tokens=2))
    scheduler.submit(conversation(2, "!!", max_tokens=2))

    replies = run(scheduler)

    assert text_of(1, replies) == "BC"
    assert [str(error) for error in only(EngineError, of(2, replies))] == ["it broke"]


def test_a_conversation_that_cannot_choose_its_next_token_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime()
    scheduler = Scheduler(runtime)
    broken, sound = conversation(1, "A"), conversation(2, "A", max_tokens=2)
    monkeypatch.setattr(broken, "advance", raise_too_complex)
    scheduler.submit(broken)
    scheduler.submit(sound)

    replies = run(scheduler)

    assert [str(error) for error in only(EngineError, of(1, replies))] == ["too complex"]
    assert text_of(2, replies) == "BC"
    assert runtime.open_sequences == []


def raise_too_complex(_: Logits) -> list[ChatEvent]:
    raise EngineError("too complex")


def test_conversations_that_do_not_fit_together_all_end_with_their_whole_answer() -> None:
    """Each fits alone; who outgrows the memory waits, and goes on where it was."""
    scheduler = Scheduler(FakeRuntime(context_tokens=50))
    for request_id in range(3):
        scheduler.submit(conversation(request_id, " ", max_tokens=40, context=50))

    replies = run(scheduler)

    whole = "".join(chr(n) for n in range(33, 73))
    assert [text_of(request_id, replies) for request_id in range(3)] == [whole] * 3
    assert sorted(whose(ChatFinished, replies)) == [0, 1, 2]


def test_the_context_bounds_the_answer() -> None:
    scheduler = Scheduler(FakeRuntime())
    scheduler.submit(conversation(1, "ABC", context=5))

    assert run(scheduler)[-1] == (1, ChatFinished("length", Usage(prompt_tokens=3, completion_tokens=2)))


def test_what_was_held_back_for_a_stop_string_comes_when_the_answer_ends_without_it() -> None:
    scheduler = Scheduler(FakeRuntime())
    scheduler.submit(conversation(1, "A", max_tokens=3, stop=("DEF",)))

    replies = run(scheduler)

    assert replies == [
        (1, ChatPiece("B")),
        (1, ChatPiece("C")),
        (1, ChatPiece("D")),
        (1, ChatFinished("length", Usage(prompt_tokens=1, completion_tokens=3))),
    ]


def test_a_stop_string_ends_the_answer_in_front_of_it() -> None:
    scheduler = Scheduler(FakeRuntime())
    scheduler.submit(conversation(1, "A", stop=("DEF",)))

    replies = run(scheduler)

    assert replies == [
        (1, ChatPiece("B")),
        (1, ChatPiece("C")),
        (1, ChatFinished("stop", Usage(prompt_tokens=1, completion_tokens=5))),
    ]


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_end_tells_how_long_a_conversation_waited_for_its_place() -> None:
    clock = Clock()
    scheduler = Scheduler(FakeRuntime(), max_active=1, clock=clock)
    for request_id in (1, 2):
        scheduler.submit(conversation(request_id, "A", max_tokens=1))
        clock.now += 2

    replies = [seen(reply) for reply in scheduler.step()]
    clock.now += 3
    replies += run(scheduler)

    ends = only(ChatFinished, (what for _, what in replies))
    assert [end.queue_seconds for end in ends] == [4, 5]


def test_whoever_would_wait_too_long_is_told_how_long() -> None:
    clock = Clock()
    scheduler = Scheduler(FakeRuntime(), max_active=2, most_wait_seconds=15, clock=clock)
    for request_id in (1, 2):
        scheduler.submit(conversation(request_id, "A" * request_id))
    list(scheduler.step())
    clock.now += 20  # both go on since 20 s: a place every 10 s

    scheduler.submit(conversation(3, "A"))
    with pytest.raises(Overloaded, match=r"1 conversations wait .* about 20 s") as refused:
        scheduler.submit(conversation(4, "A"))

    assert refused.value.retry_after_seconds == 20


def test_whoever_has_waited_twice_as_long_as_is_bearable_is_sent_away() -> None:
    clock = Clock()
    scheduler = Scheduler(FakeRuntime(), max_active=1, most_wait_seconds=15, clock=clock)
    scheduler.submit(conversation(1, "A"))
    list(scheduler.step())
    scheduler.submit(conversation(2, "A"))
    clock.now += 31

    replies = [seen(reply) for reply in scheduler.step()]

    (error,) = only(Overloaded, of(2, replies))
    assert error.retry_after_seconds == 31


def test_a_free_place_is_taken_however_long_others_have_stayed() -> None:
    clock = Clock()
    scheduler = Scheduler(FakeRuntime(), max_active=2, most_wait_seconds=1, clock=clock)
    scheduler.submit(conversation(1, "A"))
    list(scheduler.step())
    clock.now += 1000

    scheduler.submit(conversation(2, "A", max_tokens=1))

    assert text_of(2, [seen(reply) for reply in scheduler.step()]) == "B"
