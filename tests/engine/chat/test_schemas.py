"""What becomes of schemas that the grammar cannot express, and of those that small models never finish."""

import json
from typing import Any

import pytest

from engine.chat.grammar import GrammarCompiler
from engine.chat.schemas import ONE_WAY_TO_WRITE, expressible
from engine.errors import BadInput
from engine.types import ChatRequest, JsonFormat, Message, Tool, ToolUse

Json = dict[str, Any]
TEXT: Json = {"type": "string"}


def nearest(schema: Json) -> tuple[Json, list[str]]:
    found = expressible(schema)
    written: Json = json.loads(found.schema)
    assert written.pop("x-guidance") == ONE_WAY_TO_WRITE
    return written, [str(lost) for lost in found.loosened]


@pytest.mark.parametrize(
    ("wanted", "left", "lost"),
    [
        ({"propertyNames": {"pattern": "^a"}}, {}, ["propertyNames"]),
        ({"not": TEXT}, {}, ["not"]),
        ({"type": "array", "uniqueItems": True}, {"type": "array"}, ["uniqueItems"]),
        ({"if": {"minProperties": 1}, "then": {"required": ["a"]}}, {}, ["if", "then"]),
        ({"dependentRequired": {"a": ["b"]}}, {}, ["dependentRequired"]),
        ({"type": "array", "contains": TEXT}, {"type": "array"}, ["contains"]),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, None, ["oneOf"]),
        (TEXT | {"format": "binary"}, TEXT, ["format"]),
        (TEXT | {"pattern": "^(?=x)y"}, TEXT, ["pattern"]),
        (TEXT | {"minLength": None}, TEXT, ["minLength"]),
        (TEXT | {"$schema": "http://example.com/mine"}, TEXT, ["$schema"]),
        ({"type": "object", "properties": None}, {"type": "object"}, ["properties"]),
        ({"type": "file"}, {}, ["type"]),
        ({"$ref": "http://example.com/other.json"}, {}, ["$ref"]),
        ({"unevaluatedProperties": False}, {}, ["unevaluatedProperties"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_keyword_that_cannot_be_expressed_is_dropped_alone_and_named(
    wanted: Json, left: Json | None, lost: list[str]
) -> None:
    closed = {"type": "object", "additionalProperties": False}
    expected = {"anyOf": wanted["oneOf"]} if left is None else left

    assert nearest({"type": "object", "properties": {"a": wanted, "b": TEXT}}) == (
        {**closed, "properties": {"a": expected, "b": TEXT}},
        [f"properties.a.{keyword}" for keyword in lost],
    )


def test_what_can_be_expressed_is_left_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {"when": TEXT | {"format": "date-time"}, "tags": {"type": "array", "items": TEXT}},
        "required": ["when"],
        "additionalProperties": {"type": "number", "minimum": 0},
    }

    assert nearest(schema) == (schema, [])


def test_a_reference_to_any_place_of_the_schema_still_holds_when_another_part_is_loosened() -> None:
    point = {"type": "object", "properties": {"x": {"type": "number"}}}
    schema = {"type": "object", "properties": {"a": point, "b": {"$ref": "#/properties/a", "not": TEXT}}}

    left, lost = nearest(schema)

    assert lost == ["properties.b.not"]
    assert left["properties"]["b"]["$ref"] in [f"#/$defs/{name}" for name in left["$defs"]]


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"properties": {"a": TEXT}}, True),
        ({"properties": {"a": TEXT}, "required": ["a"]}, True),
        ({"properties": {"a": TEXT}, "required": ["b"]}, False),
        ({"properties": {"a": TEXT}, "additionalProperties": True}, False),
        ({"properties": {"a": TEXT}, "patternProperties": {"^x": TEXT}}, False),
        ({"properties": {"a": TEXT}, "anyOf": [{"required": ["a"]}]}, False),
        ({"type": "object"}, False),
    ],
)
def test_an_object_that_lists_its_properties_and_says_nothing_else_has_no_others(
    schema: Json, closed: bool
) -> None:
    assert (nearest(schema)[0].get("additionalProperties") is False) is closed


def test_parts_of_one_object_do_not_exclude_each_other() -> None:
    schema = {
        "allOf": [{"properties": {"a": TEXT}}, {"$ref": "#/$defs/b"}],
        "$defs": {"b": {"properties": {"b": TEXT}}},
    }

    assert nearest(schema) == (schema, [])


@pytest.fixture(scope="module")
def compiler(smollm2_folder: Any) -> GrammarCompiler:
    return GrammarCompiler((smollm2_folder / "tokenizer.json").read_text(encoding="utf-8"), 49152, {0, 2})


def asked(schema: Json, *, as_tool: bool) -> ChatRequest:
    messages = (Message("user", "Hi"),)
    if as_tool:
        return ChatRequest(messages, tool_use=ToolUse((Tool("t", "", json.dumps(schema)),), "required"))
    return ChatRequest(messages, json_format=JsonFormat(json.dumps(schema)))


@pytest.mark.parametrize("as_tool", [True, False])
@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/properties/a"}}},
    ],
)
def test_a_reference_that_leads_back_to_itself_is_refused_on_one_line(
    compiler: GrammarCompiler, schema: Json, as_tool: bool
) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]{1,200}leads back to itself\.$"):
        compiler.compile(asked(schema, as_tool=as_tool))


@pytest.mark.parametrize("as_tool", [True, False])
def test_hundreds_of_optional_properties_are_no_problem(compiler: GrammarCompiler, as_tool: bool) -> None:
    schema = {"type": "object", "properties": {f"property_{n}": TEXT for n in range(1000)}}

    grammar = compiler.compile(asked(schema, as_tool=as_tool))

    assert grammar is not None
    assert grammar.loosened == ()


def test_the_grammar_names_what_was_loosened_with_the_tool(compiler: GrammarCompiler) -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}

    grammar = compiler.compile(asked(schema, as_tool=True))

    assert grammar is not None
    assert grammar.loosened == ("t: properties.tags.uniqueItems",)


def test_what_no_grammar_can_follow_is_refused_on_one_line(compiler: GrammarCompiler) -> None:
    endless = {"allOf": [{"anyOf": [{"$ref": "#"}]}]}

    with pytest.raises(BadInput, match=r"^[^\n]{1,400}$"):
        compiler.compile(asked(endless, as_tool=False))
