"""What is asked of /v1/chat/completions and what comes back, in one piece."""

import json
import math
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from openai.types.chat import ChatCompletionMessageParam

from engine.types import (
    ChatPiece,
    ChatRequest,
    ChosenLogprob,
    JsonFormat,
    Message,
    ModelStatus,
    Sampling,
    TokenLogprob,
    Tool,
    ToolCall,
)
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, REVISION, FakeEngine, settings

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
ASKED = (Message("user", "Hello"),)
TEXT = {"type": "text", "text": "Hello"}


ADD = ToolCall("call_1", "add", '{"a": 2}')
ADDED = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Now", "parameters": CITY}}
TOOLS = (Tool("weather", "Now", json.dumps(CITY)),)


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


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_fingerprint_is_of_the_files_that_answered(path: str) -> None:
    """Another revision may be installed by the time the answer is written."""

    class Replaced(FakeEngine):
        def models(self) -> tuple[ModelStatus, ...]:
            return tuple(replace(model, revision="f" * 16) for model in super().models())

    asked = {"model": CHATTER, "messages": HELLO, "prompt": "Hello"}
    async with gateway(Replaced()) as running:
        whole = await running.http.post(path, json=asked)
        streamed = await running.http.post(path, json=asked | {"stream": True})

    expected = f'"system_fingerprint":"fp_{REVISION[:12]}"'
    assert expected in whole.text
    assert streamed.text.count(expected) == streamed.text.count("data: {")


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({}, Sampling()),
        ({"max_tokens": 5}, Sampling(max_tokens=5)),
        ({"max_completion_tokens": 6}, Sampling(max_tokens=6)),
        ({"max_tokens": 5, "max_completion_tokens": 6}, Sampling(max_tokens=6)),
        ({"temperature": 0}, Sampling(temperature=0.0)),
        ({"temperature": None, "top_p": None, "stop": None, "seed": None}, Sampling()),
        ({"top_p": 0.5, "seed": 3}, Sampling(top_p=0.5, seed=3)),
        ({"seed": -3}, Sampling(seed=2**64 - 3)),
        (
            {"presence_penalty": 0.5, "frequency_penalty": -1, "logit_bias": {"7": -100, "8": 0.5}},
            Sampling(presence_penalty=0.5, frequency_penalty=-1.0, logit_bias=((7, -100.0), (8, 0.5))),
        ),
        (
            {"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1},
            Sampling(top_k=4, min_p=0.1, repetition_penalty=1.1),
        ),
        ({"top_k": -1}, Sampling()),
        ({"logprobs": True}, Sampling(top_logprobs=0)),
        ({"logprobs": True, "top_logprobs": 3}, Sampling(top_logprobs=3)),
        ({"logprobs": False, "top_logprobs": 0}, Sampling()),
        ({"stop": "\n"}, Sampling(stop=("\n",))),
        ({"stop": ["a", "b", "c", "d"]}, Sampling(stop=("a", "b", "c", "d"))),
        ({"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False}, Sampling()),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "functions": []}, Sampling()),
        ({"response_format": {"type": "text"}, "logit_bias": {}, "modalities": ["text"]}, Sampling()),
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
        ({"role": "tool", "content": "4", "tool_call_id": "a"}, Message("tool", "4", tool_call_id="a")),
        ({"role": "assistant", "content": None, "tool_calls": [ADDED]}, Message("assistant", "", (ADD,))),
        ({"role": "assistant", "tool_calls": [ADDED]}, Message("assistant", "", (ADD,))),
        (
            {"role": "assistant", "content": None, "function_call": ADDED["function"]},
            Message("assistant", "", (replace(ADD, id="add"),)),
        ),
        ({"role": "function", "name": "add", "content": "4"}, Message("tool", "4", tool_call_id="add")),
        ({"role": "assistant"}, Message("assistant", "")),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            Message("user", "a\nb"),
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            Message("assistant", ""),
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
        ({"n": 9}, "n"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [WEATHER["function"]], "tools": [WEATHER]}, "functions"),
        ({"functions": [WEATHER["function"]], "function_call": {"name": "f"}}, "function_call"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"function_call": "required"}, "function_call"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
        ),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [ADDED | {"function": {"name": "f"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"logit_bias": {"7": 101}}, "logit_bias.7"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1.[key]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "function", "content": "4"}]}, "messages[0]"),
        ({"messages": [{"role": "poet", "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": ["Hello"]}]}, "messages[0].content[0]"),
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
        {"modalities": ["audio"]},
        {"audio": {"voice": "alloy", "format": "wav"}},
        {"web_search_options": {}},
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
        best_wishes=3,
        stream_options={"include_obfuscation": False},
        messages=[
            {"role": "user", "content": [TEXT | {"cache_control": {"type": "ephemeral"}}], "name": "Ann"},
            {"role": "assistant", "content": [TEXT, {"type": "refusal", "refusal": "No."}]},
        ],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": CITY, "strength": 1},
            "schema": CITY,
            "strict": True,
        },
        **{"a\r\nx-injected: 1": 1},
    )

    assert reply.status_code == 200
    assert reply.headers["x-ignored-params"].split(",") == [
        "best_wishes",
        "messages.content.cache_control",
        "messages.content.refusal",
        "messages.name",
        "response_format.json_schema.strength",
        "response_format.schema",
        "response_format.strict",
        "stream_options.include_obfuscation",
        "user",
    ]
    assert "x-injected" not in reply.headers


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "json_object"}, JsonFormat()),
        ({"type": "json_object", "schema": CITY}, JsonFormat(json.dumps(CITY))),
        ({"type": "text", "schema": CITY}, None),
        (
            {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}},
            JsonFormat(json.dumps(CITY)),
        ),
    ],
    ids=str,
)
async def test_the_form_of_the_answer_reaches_the_engine(
    running: Gateway, wanted: dict[str, object], expected: JsonFormat | None
) -> None:
    await post(running, response_format=wanted)

    assert running.engine.requests == [ChatRequest(ASKED, CHATTER, json_format=expected)]


async def test_empty_lists_and_objects_ask_for_nothing() -> None:
    """SDKs fill fields in with them."""
    content = [{"type": "text", "text": "Hello", "annotations": []}]
    async with gateway(configured=settings(strict=True)) as running:
        reply = await post(running, metadata={}, messages=[{"role": "user", "content": content}])

    assert reply.status_code == 200


async def test_an_answer_sent_back_as_it_came_is_nothing_unknown() -> None:
    """The SDK's message objects carry all fields that the reply had, null or not."""
    async with gateway(configured=settings(strict=True)) as running:
        first = await running.openai.chat.completions.create(model=CHATTER, messages=HELLO)
        again: Any = [*HELLO, first.choices[0].message, {"role": "user", "content": "And?", "name": None}]
        second = await running.openai.chat.completions.create(model=CHATTER, messages=again)

    assert second.choices[0].message.content == "Hello"


async def test_the_openai_client_reads_logprobs() -> None:
    token = TokenLogprob("é".encode()[:1], -math.inf)
    engine = FakeEngine(pieces=(ChatPiece("é", (ChosenLogprob(token, (token,)),)),))
    async with gateway(engine) as running:
        answer = await running.openai.chat.completions.create(
            model=CHATTER, messages=HELLO, logprobs=True, top_logprobs=1
        )

    written = {"token": "\ufffd", "logprob": -9999.0, "bytes": [0xC3]}
    assert answer.choices[0].logprobs
    assert answer.choices[0].logprobs.model_dump() == {
        "content": [written | {"top_logprobs": [written]}],
        "refusal": None,
    }
