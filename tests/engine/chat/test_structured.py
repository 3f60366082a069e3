"""Answers that must be JSON of a schema or calls of tools, by a model too small to get them right alone."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from engine.errors import BadInput
from engine.types import (
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatToolCall,
    JsonFormat,
    Message,
    Sampling,
    Tool,
    ToolCall,
    ToolUse,
)
from tests.engine.chat.seen import only, text_of
from tests.engine.chat.worker_client import ChatWorker, chat_worker

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    json.dumps(
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        }
    ),
)
CLOCK = Tool("get_time", "The time.", json.dumps({"type": "object", "additionalProperties": False}))


@pytest.fixture(scope="module")
def worker(smollm2_folder: Path) -> Iterator[ChatWorker]:
    with chat_worker(smollm2_folder) as worker:
        worker.receive()
        yield worker


def request(content: str, **fields: Any) -> ChatRequest:
    sampling = fields.pop("sampling", Sampling(temperature=0, max_tokens=200))
    return ChatRequest((Message("user", content),), sampling=sampling, **fields)


def refusal(worker: ChatWorker, wanted: ChatRequest) -> BadInput:
    error = worker.refusal(worker.send(wanted))
    assert isinstance(error, BadInput)
    return error


def calls_of(worker: ChatWorker, wanted: ChatRequest) -> tuple[list[ToolCall], ChatFinished]:
    *events, finished = worker.events(worker.send(wanted))
    assert isinstance(finished, ChatFinished), finished
    return [called.call for called in only(ChatToolCall, events)], finished


def random_schema(rng: random.Random, depth: int) -> dict[str, Any]:
    """Every string, array and nesting is bounded, so that every document ends."""
    kinds = ["string", "enum", "integer", "number", "boolean", "null", "const"]
    kind = rng.choice([*kinds, "object", "object", "array"] if depth else kinds)
    match kind:
        case "object":
            names = rng.sample(
                ["name", "age", "tags", "is_open", "größe", 'with "quotes"'], rng.randint(1, 3)
            )
            return {
                "type": "object",
                "properties": {name: random_schema(rng, depth - 1) for name in names},
                "required": rng.sample(names, rng.randint(0, len(names))),
                "additionalProperties": False,
            }
        case "array":
            low = rng.randint(0, 2)
            items = random_schema(rng, depth - 1)
            return {"type": "array", "items": items, "minItems": low, "maxItems": low + 1}
        case "string":
            return {"type": "string", "maxLength": rng.randint(1, 8)}
        case "enum":
            return {"enum": ["red", "green", 3, None][: rng.randint(1, 4)]}
        case "integer":
            low = rng.randint(-50, 50)
            return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 1000)}
        case "number":
            return {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25}
        case "const":
            return {"const": {"fixed": [1, "two"]}}
        case _:
            return {"type": kind}


def test_fifty_random_schemas_give_fifty_valid_documents(worker: ChatWorker) -> None:
    rng = random.Random(4)
    schemas = [random_schema(rng, depth=3) | {"title": str(n)} for n in range(50)]
    wanted = {
        worker.send(
            request(
                "Invent a document.",
                json_format=JsonFormat(json.dumps(schema)),
                sampling=Sampling(temperature=1.0, seed=n, max_tokens=400),
            )
        ): schema
        for n, schema in enumerate(schemas)
    }

    replies = worker.replies(*wanted)

    assert {end.finish_reason for end in only(ChatFinished, (what for _, what in replies))} == {"stop"}
    for request_id, schema in wanted.items():
        jsonschema.validate(json.loads(text_of(request_id, replies)), schema)


def test_without_a_schema_the_answer_is_some_json_object(worker: ChatWorker) -> None:
    request_id = worker.send(request('Answer {"ok": true} as JSON.', json_format=JsonFormat()))
    replies = worker.replies(request_id)

    assert text_of(request_id, replies).startswith("{")
    _, end = replies[-1]
    assert isinstance(end, ChatFinished)
    if end.finish_reason == "stop":
        assert isinstance(json.loads(text_of(request_id, replies)), dict)


def test_a_document_that_the_token_limit_cuts_off_says_length(worker: ChatWorker) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    wanted = request(
        "A long story, please.",
        json_format=JsonFormat(json.dumps(schema)),
        sampling=Sampling(temperature=0, max_tokens=4),
    )

    finished = worker.events(worker.send(wanted))[-1]

    assert isinstance(finished, ChatFinished)
    assert finished.finish_reason == "length"


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ('{"not": {"type": "string"}}', "not"),
        ('{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ('{"type": "string", "pattern": "(?=x)"}', "look-around"),
        ('{"type": "thing"}', "thing"),
        ("[1]", "must be a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_a_schema_that_cannot_be_expressed_is_refused_by_name(
    worker: ChatWorker, schema: str, names: str
) -> None:
    error = refusal(worker, request("Hi", json_format=JsonFormat(schema)))

    assert names in str(error)
    assert error.field == "json_format"


def test_required_calls_parse_and_match_their_schema(worker: ChatWorker) -> None:
    use = ToolUse((WEATHER, CLOCK), choice="required")
    calls, finished = calls_of(worker, request("How is the weather in Paris?", tool_use=use))

    assert calls
    for call in calls:
        schema = json.loads({t.name: t for t in use.tools}[call.name].parameters)
        jsonschema.validate(json.loads(call.arguments), schema)
    assert finished.finish_reason in ("tool_calls", "length")


def test_a_named_tool_is_called_once_if_calls_may_not_be_parallel(worker: ChatWorker) -> None:
    use = ToolUse((WEATHER, CLOCK), only="get_time", parallel=False)
    calls, finished = calls_of(worker, request("How is the weather in Paris?", tool_use=use))

    assert [(call.name, call.arguments) for call in calls] == [("get_time", "{}")]
    assert calls[0].id.startswith("call_")
    assert finished.finish_reason == "tool_calls"


def test_with_auto_the_model_may_simply_answer(worker: ChatWorker) -> None:
    use = ToolUse((WEATHER,))
    wanted = request("Say hello.", tool_use=use, sampling=Sampling(temperature=0, max_tokens=30))
    events = worker.events(worker.send(wanted))

    assert any(isinstance(event, ChatPiece | ChatToolCall) for event in events)


def test_with_none_no_tool_is_called(worker: ChatWorker) -> None:
    use = ToolUse((WEATHER,), choice="none")
    calls, finished = calls_of(
        worker, request("Weather?", tool_use=use, sampling=Sampling(temperature=0, max_tokens=5))
    )

    assert calls == []
    assert finished.finish_reason in ("stop", "length")


def test_an_unknown_tool_cannot_be_chosen(worker: ChatWorker) -> None:
    error = refusal(worker, request("Hi", tool_use=ToolUse((CLOCK,), only="get_tim")))

    assert "get_tim" in str(error)
    assert error.field == "tool_use"


def test_a_strict_tool_with_an_impossible_schema_is_refused_by_name(worker: ChatWorker) -> None:
    broken = Tool("broken", "", '{"type": "object", "not": {}}', strict=True)

    error = refusal(worker, request("Hi", tool_use=ToolUse((CLOCK, broken), choice="required")))

    assert (error.field, error.index) == ("tools", 1)
    assert "not" in str(error)
