import asyncio

import httpx2
import openai
import pytest

from engine.types import ChatRequest, Message, Sampling
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, FakeEngine, soon

HELLO = [{"role": "user", "content": "Hello"}]
ASKED = (Message("user", "Hello"),)


async def post(running: Gateway, **fields: object) -> httpx2.Response:
    return await running.http.post(
        "/v1/chat/completions", json={"model": CHATTER, "messages": HELLO} | fields
    )


async def test_the_openai_client_gets_the_answer_with_usage(running: Gateway) -> None:
    answer = (await running.openai.chat.completions.create(model=CHATTER, messages=HELLO)).model_dump(
        exclude_unset=True
    )

    assert answer == {
        "id": answer["id"],
        "object": "chat.completion",
        "created": answer["created"],
        "model": CHATTER,
        "system_fingerprint": "fp_0123456789ab",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


async def test_no_two_answers_have_the_same_id(running: Gateway) -> None:
    ids = {(await post(running)).json()["id"] for _ in range(20)}

    assert len(ids) == 20


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({}, Sampling()),
        ({"max_tokens": 5}, Sampling(max_tokens=5)),
        ({"max_completion_tokens": 6}, Sampling(max_tokens=6)),
        ({"max_tokens": 5, "max_completion_tokens": 6}, Sampling(max_tokens=6)),
        ({"temperature": 0}, Sampling(temperature=0.0)),
        ({"temperature": None, "top_p": None, "stop": None, "seed": None}, Sampling()),
        ({"top_p": 0.5, "seed": -3}, Sampling(top_p=0.5, seed=-3)),
        ({"stop": "\n"}, Sampling(stop=("\n",))),
        ({"stop": ["a", "b", "c", "d"]}, Sampling(stop=("a", "b", "c", "d"))),
        ({"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False}, Sampling()),
        ({"tools": [], "response_format": {"type": "text"}, "logit_bias": {}}, Sampling()),
    ],
    ids=str,
)
async def test_every_sampling_field_reaches_the_engine(
    running: Gateway, fields: dict[str, object], sampling: Sampling
) -> None:
    reply = await post(running, **fields)

    assert reply.status_code == 200
    assert "x-ignored-params" not in reply.headers
    assert running.engine.requests == [ChatRequest(ASKED, CHATTER, sampling)]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "developer", "content": "Be brief"}, Message("system", "Be brief")),
        ({"role": "system", "content": "Be brief"}, Message("system", "Be brief")),
        ({"role": "tool", "content": "4", "tool_call_id": "a"}, Message("tool", "4")),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}, Message("assistant", "")),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, Message("assistant", "")),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            Message("user", "a\nb"),
        ),
    ],
    ids=str,
)
async def test_every_form_of_a_message_is_read(
    running: Gateway, message: dict[str, object], expected: Message
) -> None:
    reply = await post(running, messages=[message, *HELLO])

    assert reply.status_code == 200
    assert running.engine.requests == [ChatRequest((expected, *ASKED), CHATTER)]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 99}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": 7}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "poet", "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["Hello"]}]}, "messages[0].content"),
        ({"model": 7}, "model"),
    ],
    ids=str,
)
async def test_a_wrong_request_is_a_400_that_names_the_parameter(
    running: Gateway, fields: dict[str, object], param: str
) -> None:
    reply = await post(running, **fields)

    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert running.engine.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "required"},
        {"functions": [{"name": "f"}]},
        {"response_format": {"type": "json_object"}},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -0.5},
        {"logit_bias": {"7": 1}},
        {"modalities": ["audio"]},
    ],
    ids=str,
)
async def test_what_the_engine_cannot_do_is_refused_by_name(
    running: Gateway, fields: dict[str, object]
) -> None:
    reply = await post(running, **fields)

    (name,) = fields
    assert reply.status_code == 400
    assert reply.json()["error"] == {
        "message": f"This gateway does not support '{name}'. Leave it out.",
        "type": "invalid_request_error",
        "param": name,
        "code": "unsupported_parameter",
    }


async def test_unknown_fields_are_named_in_the_reply_wherever_they_are(running: Gateway) -> None:
    reply = await post(
        running,
        user="me",
        top_k=3,
        stream_options={"include_obfuscation": False},
        messages=[{"role": "user", "content": "Hello", "name": "Ann"}],
        **{"a\r\nx-injected: 1": 1},
    )

    assert reply.status_code == 200
    assert reply.headers["x-ignored-params"] == "messages.name,stream_options.include_obfuscation,top_k,user"
    assert "x-injected" not in reply.headers


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
    create = running.openai.chat.completions.create(model=model, messages=HELLO, stream=True)

    if error:
        with pytest.raises(error, match="nope"):
            await create
    else:
        assert (await create).response.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_frees_the_model(stream: bool) -> None:
    engine = FakeEngine()
    engine.reading.clear()
    async with gateway(engine) as running:
        call = asyncio.create_task(post(running, stream=stream))
        await soon(engine.started.wait())

        call.cancel()

        await soon(engine.ended.wait())


async def test_a_reader_who_leaves_in_the_middle_frees_the_model() -> None:
    engine = FakeEngine()
    engine.writing.clear()
    async with gateway(engine) as running:
        stream = await running.openai.chat.completions.create(model=CHATTER, messages=HELLO, stream=True)
        await anext(aiter(stream))
        assert not engine.ended.is_set()

        await stream.close()

        await soon(engine.ended.wait())
