"""Tools, and functions as they were called before."""

from dataclasses import replace
from typing import Any

import pytest

from engine.types import (
    ChatRequest,
    ChatToolCall,
    Message,
    ToolCall,
    ToolUse,
)
from tests.openai_shim.chat.test_chat import ADD, ADDED, ASKED, HELLO, TOOLS, WEATHER, post
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, FakeEngine


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ({}, ToolUse(TOOLS)),
        ({"tool_choice": "none"}, ToolUse(TOOLS, "none")),
        ({"tool_choice": "required"}, ToolUse(TOOLS, "required")),
        (
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
            ToolUse(TOOLS, only="weather"),
        ),
        ({"parallel_tool_calls": False}, ToolUse(TOOLS, parallel=False)),
    ],
    ids=str,
)
async def test_tools_reach_the_engine(running: Gateway, fields: dict[str, object], use: ToolUse) -> None:
    await post(running, tools=[WEATHER], **fields)

    assert running.engine.requests == [ChatRequest(ASKED, CHATTER, tool_use=use)]


async def test_the_openai_client_gets_the_calls_whole_and_streamed() -> None:
    engine = FakeEngine(pieces=(ChatToolCall(ADD), ChatToolCall(replace(ADD, id="call_2"))))
    async with gateway(engine) as running:
        asked: dict[str, Any] = {"model": CHATTER, "messages": HELLO, "tools": [WEATHER]}
        choice = (await running.openai.chat.completions.create(**asked)).choices[0]
        stream = await running.openai.chat.completions.create(**asked, stream=True)
        deltas = [chunk.choices[0].delta.tool_calls async for chunk in stream]

    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    assert [call.model_dump() for call in choice.message.tool_calls] == [ADDED, ADDED | {"id": "call_2"}]
    assert [call.model_dump() for delta in deltas if delta for call in delta] == [
        {"index": 0} | ADDED,
        {"index": 1} | ADDED | {"id": "call_2"},
    ]


BROKEN = ["", "[", '{"a": 2', "Paris", "NaN", "[1]", '{"a": "\\x"}', "[" * 100_000, '{"b":1,  "a":2}']
"""What models have written for arguments."""


@pytest.mark.parametrize("arguments", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("older", [False, True])
async def test_arguments_of_earlier_calls_reach_the_engine_as_the_model_wrote_them(
    running: Gateway, arguments: str, older: bool
) -> None:
    function = {"name": "add", "arguments": arguments}
    turn = {"function_call": function} if older else {"tool_calls": [ADDED | {"function": function}]}

    reply = await post(running, messages=[*HELLO, {"role": "assistant"} | turn])

    call = ToolCall("add" if older else "call_1", "add", arguments)
    assert reply.status_code == 200
    assert running.engine.requests == [ChatRequest((*ASKED, Message("assistant", "", (call,))), CHATTER)]


FUNCTIONS: dict[str, Any] = {"model": CHATTER, "messages": HELLO, "functions": [WEATHER["function"]]}


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ({}, ToolUse(TOOLS, parallel=False)),
        ({"function_call": "auto"}, ToolUse(TOOLS, parallel=False)),
        ({"function_call": "none"}, ToolUse(TOOLS, "none", parallel=False)),
        ({"function_call": {"name": "weather"}}, ToolUse(TOOLS, only="weather", parallel=False)),
    ],
    ids=str,
)
async def test_functions_are_tools_of_which_one_is_called(
    running: Gateway, fields: dict[str, object], use: ToolUse
) -> None:
    reply = await running.http.post("/v1/chat/completions", json=FUNCTIONS | fields)

    assert running.engine.requests == [ChatRequest(ASKED, CHATTER, tool_use=use)]
    assert "x-ignored-params" not in reply.headers


async def test_who_sent_functions_gets_the_call_in_their_form_whole_and_streamed() -> None:
    async with gateway(FakeEngine(pieces=(ChatToolCall(ADD),))) as running:
        choice = (await running.openai.chat.completions.create(**FUNCTIONS)).choices[0]
        stream = await running.openai.chat.completions.create(**FUNCTIONS, stream=True)
        streamed = [chunk.choices[0] async for chunk in stream]

    assert choice.model_dump(exclude_unset=True) == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "function_call": ADDED["function"],
        },
        "logprobs": None,
        "finish_reason": "function_call",
    }
    assert [part.delta.function_call.model_dump() for part in streamed if part.delta.function_call] == [
        ADDED["function"]
    ]
    assert [part.finish_reason for part in streamed] == [None, None, "function_call"]


async def test_who_sent_functions_and_gets_text_finds_nothing_unusual(running: Gateway) -> None:
    choice = (await running.openai.chat.completions.create(**FUNCTIONS)).choices[0]

    message = choice.message
    assert (message.content, message.function_call, choice.finish_reason) == ("Hello", None, "stop")
