"""Guesses at the next tokens, from the guess to the answer of a worker process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.chat.chat_messages import ChatReady
from engine.chat.runtimes.genai import GenaiRuntime
from engine.chat.runtimes.runtime import Advanced, SequenceWork
from engine.chat.scheduler import Scheduler
from engine.chat.speculation import PromptLookup
from engine.models.decoders import convert
from engine.models.progress import silent
from tests.engine.chat.fakes import FakeRuntime, conversation
from tests.engine.chat.seen import Seens, seen
from tests.engine.chat.worker_client import chat_worker
from tests.engine.models.gguf_files import TinyGguf

TOKEN_BYTES = 2 * 2 * 4 * 64 * 4  # keys and values, layers, heads, head size, float32
REPEATING = "one two three four five six. one two three"


@pytest.fixture(scope="module")
def phi3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a whole head, as large ones have it, and float32 products, as they have not:
    the rounding of int8 activations differs between one token and several."""
    root = tmp_path_factory.mktemp("tiny-phi3")
    folder = root / "model"
    folder.mkdir()
    file = TinyGguf(architecture="phi3", kv_heads=4, context_tokens=1024).write(root / "tiny.gguf")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(convert, "is_small", lambda parameters: False)
        convert.convert(file, folder, progress=silent)
    return folder


@pytest.mark.parametrize(
    ("tokens", "most", "draft"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3], 8, (4, 5, 1, 2)),
        ([1, 2, 3, 4, 5, 1, 2, 3], 2, (4, 5)),
        ([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 1, (5,)),
        ([7, 7, 7, 7], 8, (7,)),
        ([1, 2, 3, 4, 5, 6, 7, 8], 8, ()),
        ([1, 2, 3], 8, ()),
        ([1], 8, ()),
        ([1, 2, 3, 4, 5, 1, 2, 3], 0, ()),
    ],
    ids=[
        "what followed",
        "no more than asked for",
        "the latest of several",
        "up to now",
        "new",
        "first",
        "short",
        "no room",
    ],
)
def test_a_draft_is_what_followed_the_last_three_tokens_before(
    tokens: list[int], most: int, draft: tuple[int, ...]
) -> None:
    assert PromptLookup().draft(tokens, most) == draft


def test_drafts_grow_while_they_are_right_and_shrink_when_they_are_wrong() -> None:
    lookup = PromptLookup()
    tokens = [*range(30), 0, 1, 2]
    lengths = []
    for right in (4, 8, 3, 3, 0, 1):
        draft = lookup.draft(tokens, 100)
        lengths.append(len(draft))
        tokens += [*draft[:right], *([] if right >= len(draft) else [99, 0, 1, 2])]

    assert lengths == [4, 8, 8, 3, 6, 1]


def run(scheduler: Scheduler) -> Seens:
    replies: Seens = []
    while not scheduler.idle:
        replies += map(seen, scheduler.step())
    return replies


@pytest.mark.parametrize("prompt", ["ABCDEFGHIJKLMN.ABC", "ABCXYZ.ABC"], ids=["right", "wrong"])
def test_an_answer_is_the_same_whether_drafts_are_right_or_wrong(prompt: str) -> None:
    plain, speculating = Scheduler(FakeRuntime()), Scheduler(FakeRuntime())
    plain.submit(conversation(1, prompt, max_tokens=9))
    speculating.submit(conversation(1, prompt, max_tokens=9, speculates=True))

    assert run(speculating) == run(plain)


def test_a_right_draft_saves_steps() -> None:
    runtime = FakeRuntime()
    scheduler = Scheduler(runtime)
    scheduler.submit(conversation(1, "ABCDEFGHIJKLMN.ABC", max_tokens=9, speculates=True))

    run(scheduler)

    # the prompt, then D and a draft of four; then I, and room for a draft of two
    assert [count for ((_, count),) in runtime.steps] == [18, 5, 3]


def test_the_model_tells_what_follows_each_token_of_a_draft(phi3_folder: Path) -> None:
    runtime = GenaiRuntime(phi3_folder, threads=1, context_tokens=None, kv_bytes=64 << 20)
    tokens = [1, 20, 7, 42, 19, 12, 5]
    whole, drafted = runtime.open(tokens[:4], 100), runtime.open(tokens[:4], 100)
    assert whole
    assert drafted

    (outcome,) = runtime.advance([SequenceWork(drafted, 4, tuple(tokens[4:]))])

    assert isinstance(outcome, Advanced)
    for position, logits in enumerate(outcome.logits, start=4):
        (expected,) = runtime.advance([SequenceWork(whole, 4 if position == 4 else 1)])
        assert isinstance(expected, Advanced)
        np.testing.assert_allclose(logits, expected.logits[0], atol=1e-3)
        if position < len(tokens):
            whole.append(tokens[position])


def test_tokens_after_a_wrong_draft_are_foreseen_as_if_there_had_been_none(phi3_folder: Path) -> None:
    runtime = GenaiRuntime(phi3_folder, threads=1, context_tokens=None, kv_bytes=64 << 20)
    misled, fresh = runtime.open([1, 20, 7], 100), runtime.open([1, 20, 7, 42, 19], 100)
    assert misled
    assert fresh

    list(runtime.advance([SequenceWork(misled, 3, (42, 8, 9, 10))]))
    misled.append(42)  # right
    misled.append(19)  # wrong

    (ours,), (expected,) = (
        runtime.advance([SequenceWork(misled, 1)]),
        runtime.advance([SequenceWork(fresh, 5)]),
    )
    assert isinstance(ours, Advanced)
    assert isinstance(expected, Advanced)
    np.testing.assert_allclose(ours.logits[0], expected.logits[0], atol=1e-3)


def test_a_draft_waits_while_a_conversation_is_read_again_into_a_larger_memory(phi3_folder: Path) -> None:
    runtime = GenaiRuntime(phi3_folder, threads=1, context_tokens=None, kv_bytes=1400 * TOKEN_BYTES)
    tokens = [1 + n % 250 for n in range(267)]
    roomy, tight = runtime.open([5], 1024), runtime.open(tokens[:10], 1000)
    assert roomy
    assert tight
    for token in tokens[10:-1]:
        tight.append(token)
    list(runtime.advance([SequenceWork(tight, 266)]))
    tight.append(tokens[-1])
    assert (tight.cache.capacity, tight.unread) == (266, 1)
    runtime.close(roomy)

    (grown,) = runtime.advance([SequenceWork(tight, 1, (7, 8))])

    assert grown == Advanced(tight, [])
    (ours,) = runtime.advance([SequenceWork(tight, 266)])
    runtime.close(tight)
    fresh = runtime.open(tokens, 1000)
    assert fresh
    (expected,) = runtime.advance([SequenceWork(fresh, 267)])
    assert isinstance(ours, Advanced)
    assert isinstance(expected, Advanced)
    np.testing.assert_allclose(ours.logits[0], expected.logits[0], atol=1e-3)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3}], ids=["greedy", "seeded"])
def test_a_worker_that_speculates_writes_the_same_answer(phi3_folder: Path, sampling: dict[str, Any]) -> None:
    with chat_worker(phi3_folder) as plain, chat_worker(phi3_folder, speculate=True) as speculating:
        answers = []
        for worker in (plain, speculating):
            assert isinstance(worker.receive(), ChatReady)
            _, *events = worker.events(worker.ask(REPEATING, max_tokens=40, **sampling))
            answers.append(events)

    assert answers[1] == answers[0]
