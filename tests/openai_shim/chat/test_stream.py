"""The bytes of a stream, which clients of every language parse by hand."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from engine.errors import WorkerCrashed
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, FakeEngine, soon

BODY: dict[str, Any] = {"model": CHATTER, "messages": [{"role": "user", "content": "Hello"}], "stream": True}

HEAD = (
    '"id":"chatcmpl-ID","object":"chat.completion.chunk","created":0,"model":"tiny-chatter",'
    '"system_fingerprint":"fp_0123456789ab"'
)


def chunk(delta: str, finish_reason: str = "null") -> str:
    return (
        f'data: {{{HEAD},"choices":[{{"index":0,"delta":{delta},"logprobs":null,'
        f'"finish_reason":{finish_reason}}}]}}\n\n'
    )


ROLE = chunk('{"role":"assistant","content":"","refusal":null}')
USAGE = (
    f'data: {{{HEAD},"choices":[],"usage":{{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,'
    '"prompt_tokens_details":{"cached_tokens":0}}}\n\n'
)
DONE = "data: [DONE]\n\n"


def constant(text: str) -> str:
    """With what differs from one answer to the next replaced."""
    return re.sub(r'"created":\d+', '"created":0', re.sub(r"chatcmpl-[0-9a-f]{32}", "chatcmpl-ID", text))


async def test_a_stream_is_role_pieces_reason_and_done(running: Gateway) -> None:
    reply = await running.http.post("/v1/chat/completions", json=BODY)

    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-device"] == "cpu"
    assert constant(reply.text) == (
        ROLE + chunk('{"content":"Hel"}') + chunk('{"content":"lo"}') + chunk("{}", '"stop"') + DONE
    )


async def test_the_usage_chunk_stands_just_before_done_when_asked_for(running: Gateway) -> None:
    reply = await running.http.post(
        "/v1/chat/completions", json=BODY | {"stream_options": {"include_usage": True}}
    )

    *before, usage, done = constant(reply.text).split("\n\n")[:-1]
    assert (f"{usage}\n\n", f"{done}\n\n") == (USAGE, DONE)
    assert [each.endswith(',"usage":null}') for each in before] == [True] * 4


async def test_an_answer_without_text_is_a_whole_stream() -> None:
    async with gateway(FakeEngine(pieces=())) as running:
        reply = await running.http.post("/v1/chat/completions", json=BODY)

    assert constant(reply.text) == ROLE + chunk("{}", '"stop"') + DONE


async def test_each_piece_is_sent_when_it_exists() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with (
        gateway(engine) as running,
        running.http.stream("POST", "/v1/chat/completions", json=BODY) as reply,
    ):
        received = await read_until(reply.aiter_text(), "Hel")

        assert constant(received) == ROLE + chunk('{"content":"Hel"}')
        assert not engine.ended.is_set()


async def test_comments_keep_a_stream_alive_while_a_long_prompt_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("openai_shim.generation.streaming.KEEP_ALIVE_SECONDS", 0.01)
    engine = FakeEngine()
    engine.reading.clear()
    async with (
        gateway(engine) as running,
        running.http.stream("POST", "/v1/chat/completions", json=BODY) as reply,
    ):
        texts = reply.aiter_text()
        received = await read_until(texts, ": ping\n\n: ping\n\n")
        engine.reading.set()
        received += await read_until(texts, "[DONE]")

    assert constant(received.replace(": ping\n\n", "")) == (
        ROLE + chunk('{"content":"Hel"}') + chunk('{"content":"lo"}') + chunk("{}", '"stop"') + DONE
    )


async def test_a_wait_in_the_queue_leaves_the_status_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_shim.generation.streaming.KEEP_ALIVE_SECONDS", 0.01)
    engine = FakeEngine(error=WorkerCrashed("It ended."))
    engine.admission.clear()
    async with gateway(engine) as running:
        reply = running.http.stream("POST", "/v1/chat/completions", json=BODY)
        opened = asyncio.create_task(reply.__aenter__())
        await soon(engine.started.wait())
        engine.admission.set()

        assert (await soon(opened)).status_code == 500
        await reply.__aexit__(None, None, None)


async def test_a_late_failure_is_an_error_event_that_the_openai_client_raises() -> None:
    engine = FakeEngine(error=WorkerCrashed("The process that runs it ended."), pieces_before_error=1)
    async with gateway(engine) as running:
        raw = await running.http.post("/v1/chat/completions", json=BODY)
        stream = await running.openai.chat.completions.create(**BODY)
        with pytest.raises(openai.APIError, match="The process that runs it ended"):
            async for _ in stream:
                pass

    assert constant(raw.text) == (
        ROLE
        + chunk('{"content":"Hel"}')
        + 'data: {"error":{"message":"The process that runs it ended.","type":"server_error","param":null,'
        '"code":"worker_crashed"}}\n\n'
    )


async def test_a_late_bug_shows_nothing_of_itself() -> None:
    engine = FakeEngine(error=RuntimeError("/home/ann/secret.txt"), pieces_before_error=1)
    async with gateway(engine) as running:
        reply = await running.http.post("/v1/chat/completions", json=BODY)

    assert '"code":"internal_error"' in reply.text
    assert "secret" not in reply.text


async def read_until(texts: AsyncIterator[str], wanted: str) -> str:
    received = ""
    while wanted not in received:
        received += await soon(anext(texts))
    return received
