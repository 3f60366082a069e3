"""The Responses API, as OpenAI's client reads it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import openai
import pytest
from openai.types.responses import (
    FunctionToolParam,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseStreamEvent,
)
from pydantic import BaseModel

from engine.errors import WorkerCrashed
from engine.types import ChatToolCall, JsonFormat, Message, Sampling, Tool, ToolCall, ToolUse
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, FakeEngine, settings

ASK: dict[str, Any] = {"model": CHATTER, "input": "Hello"}
CALL = ToolCall("call_1", "add", '{"a": 1}')
ADD: FunctionToolParam = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object"},
    "strict": True,
}
TEAM: Any = {"type": "namespace", "name": "team", "tools": [ADD]}
IN_A_TEAM = ToolCall("call_1", "team.add", '{"a": 1}')


async def test_an_answer_is_one_message(running: Gateway) -> None:
    answer = await running.openai.responses.create(**ASK, max_output_tokens=5, instructions="Be brief.")

    (message,) = answer.output
    assert (answer.output_text, answer.status, answer.model) == ("Hello", "completed", CHATTER)
    assert (message.type, message.status, answer.id[:5]) == ("message", "completed", "resp_")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 2, 9)
    (asked,) = running.engine.chats
    assert asked.messages == (Message("system", "Be brief."), Message("user", "Hello"))
    assert asked.sampling == Sampling(max_tokens=5)


async def test_a_stream_is_the_events_of_one_message_in_order(running: Gateway) -> None:
    events = [event async for event in await running.openai.responses.create(**ASK, stream=True)]

    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    assert [event.delta for event in events[4:6]] == ["Hel", "lo"]
    assert events[-1].response.output_text == "Hello"
    assert events[-1].response.usage.total_tokens == 9


async def test_the_streaming_helper_follows_text_and_calls() -> None:
    async with (
        gateway(FakeEngine(pieces=("Let me see.", ChatToolCall(CALL)))) as running,
        running.openai.responses.stream(**ASK, tools=[ADD]) as stream,
    ):
        events: list[ResponseStreamEvent] = [event async for event in stream]
        final = await stream.get_final_response()

    message, call = cast(tuple[ResponseOutputMessage, ResponseFunctionToolCall], tuple(final.output))
    assert isinstance(message.content[0], ResponseOutputText)
    assert message.content[0].text == "Let me see."
    assert (call.type, call.call_id, call.name, call.arguments) == (
        "function_call",
        "call_1",
        "add",
        '{"a": 1}',
    )
    assert [event.output_index for event in events if event.type == "response.output_item.done"] == [0, 1]


async def test_whole_and_streamed_answers_have_the_same_output() -> None:
    async with gateway(FakeEngine(pieces=("Let me see.", ChatToolCall(CALL)))) as running:
        whole = await running.openai.responses.create(**ASK, tools=[ADD])
        streamed = [event async for event in await running.openai.responses.create(**ASK, stream=True)]

    def without_ids(output: Sequence[BaseModel]) -> list[Mapping[str, object]]:
        return [item.model_dump(exclude={"id"}) for item in output]

    assert without_ids(streamed[-1].response.output) == without_ids(whole.output)


async def test_a_conversation_with_calls_is_read_as_it_was_held(running: Gateway) -> None:
    await running.openai.responses.create(
        model=CHATTER,
        input=[
            {"role": "developer", "content": "Calculate."},
            {"role": "user", "content": [{"type": "input_text", "text": "1 + 1?"}]},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Wait.", "annotations": []}],
            },
            {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "2"},
        ],
        tools=[ADD],
        tool_choice={"type": "function", "name": "add"},
        parallel_tool_calls=False,
    )

    (asked,) = running.engine.chats
    assert asked.messages == (
        Message("system", "Calculate."),
        Message("user", "1 + 1?"),
        Message("assistant", "Wait.", (CALL,)),
        Message("tool", "2", tool_call_id="call_1"),
    )
    assert asked.tool_use == ToolUse(
        (Tool("add", "Adds.", '{"type": "object"}', strict=True),), "auto", only="add", parallel=False
    )


async def test_a_schema_reaches_the_engine_and_comes_back(running: Gateway) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    asked_format: Any = {"type": "json_schema", "name": "city", "schema": schema}
    answer = await running.openai.responses.create(**ASK, text={"format": asked_format})

    (asked,) = running.engine.chats
    assert asked.json_format == JsonFormat(json.dumps(schema))
    assert answer.text.format.schema_ == schema


async def test_any_json_object_can_have_a_schema(running: Gateway) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    asked_format: Any = {"type": "json_object", "schema": schema}
    await running.openai.responses.create(**ASK, text={"format": asked_format})

    (asked,) = running.engine.chats
    assert asked.json_format == JsonFormat(json.dumps(schema))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"truncation": "middle"}, "truncation"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [TEAM | {"tools": [TEAM]}]}, "tools[0].tools[0]"),
        ({"tools": [TEAM | {"tools": [{"type": "function"}]}]}, "tools[0].tools[0].name"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call", "name": "add", "arguments": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"input": []}, "input"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_needs_a_memory_or_another_model_is_refused_by_name(
    running: Gateway, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await running.openai.responses.create(**ASK | fields)

    assert refused.value.param == param
    assert not running.engine.requests


async def test_what_agents_send_and_no_local_model_can_do_is_ignored_and_named(running: Gateway) -> None:
    reply = await running.http.post(
        "/v1/responses",
        json={
            "model": CHATTER,
            "input": [
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []},
                        {"type": "refusal", "refusal": "No."},
                    ],
                },
            ],
            "tools": [
                {"type": "web_search", "external_web_access": False},
                ADD,
                TEAM | {"description": "Helpers.", "tools": [{"type": "custom"}]},
            ],
            "text": {"verbosity": "low", "format": {"type": "text", "schema": {}}},
            "include": ["reasoning.encrypted_content"],
            "store": True,
            "truncation": "auto",
        },
    )

    assert reply.headers["x-ignored-params"].split(",") == [
        "include",
        "input.content.refusal",
        "input.reasoning",
        "store",
        "text.format.schema",
        "text.verbosity",
        "tools.description",
        "tools.tools.custom",
        "tools.web_search",
        "truncation",
    ]
    (asked,) = running.engine.chats
    assert asked.messages == (Message("assistant", "Hello"),)
    assert asked.tool_use == ToolUse((Tool("add", "Adds.", '{"type": "object"}', strict=True),))
    answer = reply.json()
    assert (answer["store"], answer["truncation"]) == (False, "disabled")


async def test_what_asks_for_nothing_is_not_named(running: Gateway) -> None:
    idle = {"include": [], "store": False, "truncation": "disabled", "tools": [], "background": False}

    reply = await running.http.post("/v1/responses", json=ASK | idle)

    assert "x-ignored-params" not in reply.headers


async def test_the_functions_of_a_namespace_are_called_under_it_whole_and_streamed() -> None:
    engine = FakeEngine(pieces=(ChatToolCall(IN_A_TEAM), ChatToolCall(replace(CALL, id="call_2"))))
    async with gateway(engine) as running:
        whole: Any = await running.openai.responses.create(**ASK, tools=[ADD, TEAM])
        stream = await running.openai.responses.create(**ASK, tools=[ADD, TEAM], stream=True)
        events: list[Any] = [event async for event in stream]

    add = Tool("add", "Adds.", '{"type": "object"}', strict=True)
    assert [asked.tool_use for asked in engine.chats] == [ToolUse((add, replace(add, name="team.add")))] * 2
    for output in (whole.output, events[-1].response.output):
        assert [(call.namespace, call.name, call.call_id) for call in output] == [
            ("team", "add", "call_1"),
            (None, "add", "call_2"),
        ]
    assert [tool.type for tool in whole.tools] == ["function", "namespace"]


async def test_calls_come_back_with_their_namespace_and_whatever_arguments(running: Gateway) -> None:
    turn = {"type": "function_call", "call_id": "call_1", "namespace": "team", "name": "add"}
    asked = [
        turn | {"arguments": '{"a": 1'},
        {"type": "function_call_output", "call_id": "call_1", "output": "?"},
    ]

    reply = await running.http.post("/v1/responses", json=ASK | {"input": asked})

    assert "x-ignored-params" not in reply.headers
    (request,) = running.engine.chats
    assert request.messages == (
        Message("assistant", "", (replace(IN_A_TEAM, arguments='{"a": 1'),)),
        Message("tool", "?", tool_call_id="call_1"),
    )


async def test_an_output_sent_back_as_it_came_is_nothing_unknown() -> None:
    """As agents do that keep the conversation themselves."""
    strict = settings(strict=True)
    async with gateway(FakeEngine(pieces=("Wait.", ChatToolCall(IN_A_TEAM))), configured=strict) as running:
        first = await running.openai.responses.create(**ASK, tools=[TEAM])
        again = [item.model_dump(mode="json") for item in first.output]
        await running.openai.responses.create(model=CHATTER, input=cast(Any, again), tools=[TEAM])

    assert running.engine.chats[-1].messages == (Message("assistant", "Wait.", (IN_A_TEAM,)),)


async def test_a_late_failure_is_the_last_event() -> None:
    engine = FakeEngine(error=WorkerCrashed("It ended."), pieces_before_error=1)
    async with gateway(engine) as running:
        events = [event async for event in await running.openai.responses.create(**ASK, stream=True)]

    assert events[-1].type == "response.failed"
    assert (events[-1].response.status, events[-1].response.error.message) == ("failed", "It ended.")


async def test_an_early_failure_has_its_own_status() -> None:
    async with gateway(FakeEngine(error=WorkerCrashed("It ended."))) as running:
        with pytest.raises(openai.InternalServerError, match="It ended"):
            await running.openai.responses.create(**ASK, stream=True)


async def test_an_answer_without_text_is_an_empty_message() -> None:
    async with gateway(FakeEngine(pieces=())) as running:
        whole = await running.openai.responses.create(**ASK)
        *_, last = [event async for event in await running.openai.responses.create(**ASK, stream=True)]

    assert whole.output_text == last.response.output_text == ""
    assert len(whole.output) == len(last.response.output) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_numbers_beyond_64_bits_in_schemas_come_back_as_they_were(
    running: Gateway, streamed: bool
) -> None:
    schema = {"type": "object", "maximum": 2**70}
    asked = {
        "tools": [ADD | {"parameters": schema}],
        "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}},
    }

    reply = await running.http.post("/v1/responses", json=ASK | asked | {"stream": streamed})

    last = reply.text.strip().rpartition("data: ")[2]
    answer = json.loads(last)["response"] if streamed else reply.json()
    assert answer["tools"][0]["parameters"] == answer["text"]["format"]["schema"] == schema


async def test_a_number_that_no_reply_can_show_is_refused(running: Gateway) -> None:
    reply = await running.http.post("/v1/responses", json=ASK | {"max_output_tokens": 2**63})

    assert reply.status_code == 400
    assert reply.json()["error"] == {
        "message": "Invalid 'max_output_tokens': should be less than 9223372036854775808.",
        "type": "invalid_request_error",
        "param": "max_output_tokens",
        "code": "invalid_value",
    }
