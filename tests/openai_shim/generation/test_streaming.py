"""A stream is the answer in pieces, and ends with its reader."""

import asyncio
from typing import Any

import openai
import pytest

from tests.openai_shim.chat.test_chat import HELLO, post
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, FakeEngine, soon


async def test_a_stream_carries_the_same_answer(running: Gateway) -> None:
    stream = await running.openai.chat.completions.create(
        model=CHATTER, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None, None, None, "stop"]
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [9]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


@pytest.mark.parametrize("error", [None, openai.NotFoundError], ids=["known model", "unknown model"])
async def test_a_stream_has_a_real_status(running: Gateway, error: type[Exception] | None) -> None:
    """The first piece is awaited before the headers go out, so the status is still ours to choose."""
    model = "nope" if error else CHATTER
    create: Any = running.openai.chat.completions.create(model=model, messages=HELLO, stream=True)

    if error:
        with pytest.raises(error, match="nope"):
            await create
    else:
        assert (await create).response.status_code == 200


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_frees_the_model(stream: bool, choices: int) -> None:
    engine = FakeEngine()
    engine.reading.clear()
    async with gateway(engine) as running:
        call = asyncio.create_task(post(running, stream=stream, n=choices))
        await soon(engine.started.wait())

        call.cancel()

        await soon(engine.ended.wait())
        assert engine.running == 0


async def test_a_reader_who_leaves_in_the_middle_frees_the_model() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine) as running:
        stream = await running.openai.chat.completions.create(model=CHATTER, messages=HELLO, stream=True)
        await anext(aiter(stream))
        assert not engine.ended.is_set()

        await stream.close()

        await soon(engine.ended.wait())
