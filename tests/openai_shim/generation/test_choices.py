"""Several answers to one request, side by side."""

from typing import Any

from engine.errors import Overloaded
from tests.openai_shim.chat.test_chat import HELLO, post
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, FakeEngine, soon


async def test_several_choices_have_their_own_seeds_and_one_prompt(running: Gateway) -> None:
    reply = (await post(running, n=3, seed=5)).json()

    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert [asked.sampling.seed for asked in running.engine.chats] == [5, 6, 7]
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (7, 6)


async def test_a_stream_of_several_choices_has_them_all_and_one_usage(running: Gateway) -> None:
    asked: dict[str, Any] = {"model": CHATTER, "messages": HELLO, "n": 3, "seed": 5}
    whole = (await running.openai.chat.completions.create(**asked)).model_dump()
    stream = await running.openai.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]
    parts = [chunk.choices[0] for chunk in chunks]

    of_choice = [[part for part in parts if part.index == index] for index in range(3)]
    assert [part.index for part in parts[:3]] == [0, 1, 2]
    assert [[part.delta.role for part in one] for one in of_choice] == [["assistant", None, None, None]] * 3
    assert ["".join(part.delta.content or "" for part in one) for one in of_choice] == ["Hello"] * 3
    assert [[part.finish_reason for part in one] for one in of_choice] == [[None, None, None, "stop"]] * 3
    assert (last.choices, last.usage.model_dump()) == ([], whole["usage"])
    assert [asked.sampling.seed for asked in running.engine.chats] == [5, 6, 7] * 2


async def test_choices_are_streamed_side_by_side() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine) as running:
        stream = await running.openai.chat.completions.create(model=CHATTER, messages=HELLO, n=2, stream=True)
        chunks = aiter(stream)
        first = [(await soon(anext(chunks))).choices[0] for _ in range(4)]
        engine.writing.set()
        rest = [chunk.choices[0] async for chunk in chunks]

    assert sorted((part.index, part.delta.content) for part in first) == [
        (0, ""), (0, "Hel"), (1, ""), (1, "Hel"),
    ]  # fmt: skip
    assert sorted((part.index, part.delta.content) for part in rest if part.delta.content) == [
        (0, "lo"), (1, "lo"),
    ]  # fmt: skip


async def test_one_refused_choice_refuses_a_stream_with_its_status() -> None:
    full = Overloaded("All places are taken.", retry_after_seconds=5)
    engine = FakeEngine(error=full, error_from_request=2)
    async with gateway(engine) as running:
        reply = await post(running, n=3, stream=True)

    assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")
    assert engine.running == 0
