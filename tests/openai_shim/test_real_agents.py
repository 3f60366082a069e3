"""What agents send, to a gateway with the real models: it gets an answer, or a refusal of one line."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.openai_shim.processes import CHATTER

PLAYWRIGHT = Path(__file__).parents[1] / "data" / "playwright-mcp-tools.json"
QUESTION: dict[str, Any] = {
    "model": CHATTER,
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
}


async def test_the_tools_of_a_whole_mcp_server_are_taken_as_they_are(http: httpx2.AsyncClient) -> None:
    """Their prompt is most of the model's context, and takes a while to read."""
    functions = json.loads(PLAYWRIGHT.read_text(encoding="utf-8"))["tools"]
    tools = [{"type": "function", "function": function} for function in functions]
    asked = QUESTION | {"tools": tools, "tool_choice": "required", "temperature": 0, "max_tokens": 40}

    answer = await http.post("/v1/chat/completions", json=asked, timeout=300)

    assert (answer.status_code, len(tools)) == (200, 25)
    call = answer.json()["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["name"] in {function["name"] for function in functions}
    assert answer.headers["x-loosened-schemas"] == "browser_drop: properties.data.propertyNames"


async def test_a_function_of_a_namespace_is_called_under_it(http: httpx2.AsyncClient) -> None:
    weather = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    namespace = {"type": "namespace", "name": "mcp__now", "tools": [weather]}
    asked = {
        "model": CHATTER,
        "input": "What is the weather?",
        "tools": [{"type": "web_search"}, namespace],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }

    answer = await http.post("/v1/responses", json=asked)

    (call,) = answer.json()["output"]
    assert (call["namespace"], call["name"], call["arguments"]) == ("mcp__now", "weather", "{}")


@pytest.mark.parametrize("arguments", ["", "{", "[" * 1500, '{"a": "\\ud800"}'], ids=lambda text: text[:8])
async def test_broken_arguments_of_an_earlier_call_end_no_conversation(
    http: httpx2.AsyncClient, arguments: str
) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    turns = [{"role": "assistant", "tool_calls": [call]}, *QUESTION["messages"]]

    answer = await http.post("/v1/chat/completions", json=QUESTION | {"messages": turns, "max_tokens": 2})

    assert answer.status_code == 200


def having(**constraint: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": constraint}, "required": ["a"]}


BEYOND_A_GRAMMAR: dict[str, dict[str, Any]] = {
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^x"}},
    "if": {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "$schema": {"type": "object", "$schema": "http://schemas.example/none"},
    "properties": {"type": "object", "properties": None},
    "not": having(type="string", **{"not": {"const": "x"}}),
    "uniqueItems": having(type="array", items={"type": "integer"}, uniqueItems=True),
    "contains": having(type="array", contains={"type": "integer"}),
    "oneOf": having(oneOf=[{"type": "integer"}, {"type": "number"}]),
    "format": having(type="string", format="quux"),
    "pattern": having(type="string", pattern="^(?=a)a$"),
}
"""By the keyword that no grammar can express."""


def tool(name: str, schema: object, **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


async def test_tools_whose_schemas_no_grammar_can_hold_are_loosened_and_named(
    http: httpx2.AsyncClient,
) -> None:
    tools = [tool(f"t{index}", schema) for index, schema in enumerate(BEYOND_A_GRAMMAR.values())]

    reply = await http.post("/v1/chat/completions", json=QUESTION | {"tools": tools, "max_tokens": 2})

    assert reply.status_code == 200
    named = reply.headers["x-loosened-schemas"]
    assert [keyword for keyword in BEYOND_A_GRAMMAR if keyword not in named] == []


@pytest.mark.parametrize("keyword", BEYOND_A_GRAMMAR)
@pytest.mark.parametrize("param", ["tools[1].function.parameters", "response_format"])
async def test_where_a_schema_is_a_promise_it_is_refused_with_the_keyword_on_one_line(
    http: httpx2.AsyncClient, keyword: str, param: str
) -> None:
    schema = BEYOND_A_GRAMMAR[keyword]
    strict = {"tools": [tool("sound", {}), tool("t", schema, strict=True)]}
    answer = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}

    asked = QUESTION | (answer if param == "response_format" else strict)
    reply = await http.post("/v1/chat/completions", json=asked)

    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert f"'{keyword}'" in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    "schema",
    [{"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}],
    ids=["itself", "in a circle"],
)
async def test_a_schema_without_end_is_refused_on_one_line(
    http: httpx2.AsyncClient, schema: dict[str, Any]
) -> None:
    reply = await http.post("/v1/chat/completions", json=QUESTION | {"tools": [tool("t", schema)]})

    assert (reply.status_code, reply.json()["error"]["message"]) == (
        400,
        "Tool 't': a $ref of the schema leads back to itself.",
    )


async def test_a_call_that_the_token_limit_cuts_off_is_given_back_as_far_as_it_came(
    http: httpx2.AsyncClient,
) -> None:
    long = having(type="string", minLength=200)
    asked = QUESTION | {"tools": [tool("t", long)], "tool_choice": "required", "max_tokens": 40}

    (choice,) = (await http.post("/v1/chat/completions", json=asked)).json()["choices"]

    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], call["function"]["name"]) == ("length", "t")
    assert call["function"]["arguments"].startswith('{"a": "')
