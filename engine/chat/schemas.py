"""JSON Schemas made into what the grammar can express, and what was lost on the way.

llguidance knows most of JSON Schema, and refuses a whole schema for one keyword that it does not know. Agents
send schemas that they did not write (a third of MCP servers' tools have such a keyword), so each keyword is
tried by itself: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from llguidance import LLMatcher

ONE_WAY_TO_WRITE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Small models fall into endless whitespace where JSON allows it."""

Schema = dict[str, Any] | bool

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLES = ("items", "additionalProperties", "additionalItems", "contains", "propertyNames", "not")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas are about the same value."""
_ELSEWHERE = ("$defs", "definitions")
_DEFINED = ("#/$defs/", "#/definitions/")


@dataclass(frozen=True)
class Loosened:
    """A keyword that does not hold. path: of the schema that it stood in, such as "properties.tags".

    reason: llguidance's, on one line; "schema" as the keyword means all of them.
    """

    path: str
    keyword: str
    reason: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.path}.{self.keyword}" if self.path else self.keyword


@dataclass(frozen=True)
class Expressible:
    """schema: as text, with how its documents are written. It admits all that the original does."""

    schema: str
    loosened: tuple[Loosened, ...]


def expressible(schema: Mapping[str, Any]) -> Expressible:
    """The nearest schema that the grammar can express.

    An object that lists its properties and says nothing else has no others: small models would add some
    without end.
    """
    root = _closed(_with_definitions(schema))
    if not _problem(root):
        return Expressible(_written(root), ())
    loosening = _Loosening()
    loosened = loosening.of_root(root)
    return Expressible(_written(loosened), tuple(loosening.lost))


def endless_reference(schema: Mapping[str, Any]) -> str | None:
    """A reference that leads back to itself without saying anything on the way."""
    root = _with_definitions(schema)
    defined = {
        f"#/{key}/{name}": part
        for key in _ELSEWHERE
        if isinstance(root.get(key), dict)
        for name, part in root[key].items()
    }
    for part in (root, *defined.values()):
        passed: set[str] = set()
        while isinstance(part, dict) and isinstance(reference := part.get("$ref"), str):
            if reference in passed:
                return reference
            passed.add(reference)
            part = defined.get(reference)
    return None


class _Loosening:
    """lost: what was given up, in the order of the schema."""

    def __init__(self) -> None:
        self.lost: list[Loosened] = []
        self._definitions: dict[str, Any] = {}

    def of_root(self, root: dict[str, Any]) -> dict[str, Any]:
        """References lead to the definitions as they will be; while these are made, to anything."""
        given = {key: root[key] for key in _ELSEWHERE if isinstance(root.get(key), dict)}
        self._definitions = {key: dict.fromkeys(named, True) for key, named in given.items()}
        self._definitions = {key: self._parts(key, named, "") for key, named in given.items()}
        loosened = self.of({key: value for key, value in root.items() if key not in _ELSEWHERE}, "")
        return self._definitions | (loosened if isinstance(loosened, dict) else {})

    def of(self, schema: Any, path: str) -> Schema:
        """From the leaves up: a schema whose parts can all be expressed is left as it is."""
        if not isinstance(schema, dict):
            return schema if isinstance(schema, bool) else self._lose_all(path, "it is no JSON Schema")
        kept = {key: self._parts(key, value, path) for key, value in schema.items()}
        if self._problem(kept):
            kept = self._without_the_inexpressible(kept, path)
        if not (problem := self._problem(kept)):
            return kept
        for key in reversed(kept):  # each can be expressed, but not all of them together
            if not self._problem(rest := {k: v for k, v in kept.items() if k != key}):
                return self._lose(rest, path, key, problem)
        return self._lose_all(path, problem)

    def _parts(self, key: str, value: Any, path: str) -> Any:
        if key in _MAPS and isinstance(value, dict):
            return {name: self.of(part, _dotted(path, key, name)) for name, part in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self.of(part, _dotted(path, key, index)) for index, part in enumerate(value)]
        if key in _SINGLES and isinstance(value, dict):
            return self.of(value, _dotted(path, key))
        return value

    def _without_the_inexpressible(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in schema.items():
            if not (problem := self._problem({key: value})):
                kept[key] = value
            elif key == "oneOf" and "anyOf" not in schema and not self._problem({"anyOf": value}):
                kept = self._lose({**kept, "anyOf": value}, path, key, problem)
            else:
                kept = self._lose(kept, path, key, problem)
        return kept

    def _problem(self, schema: dict[str, Any]) -> str:
        return _problem(self._definitions | schema)

    def _lose(self, rest: dict[str, Any], path: str, keyword: str, why: str) -> dict[str, Any]:
        self.lost.append(Loosened(path, keyword, " ".join(why.split())))
        return rest

    def _lose_all(self, path: str, why: str) -> Schema:
        self._lose({}, path, "schema", why)
        return True


def _problem(schema: dict[str, Any]) -> str:
    """What llguidance has against it; empty when it has nothing."""
    problem: str = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(_written(schema)))
    return "" if problem.startswith("WARNING") else problem


def _written(schema: dict[str, Any]) -> str:
    return json.dumps(schema | {"x-guidance": ONE_WAY_TO_WRITE})


def _with_definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """References to any place (zod writes "#/properties/a/items") become references to definitions.

    A part of the schema can then be judged without the rest.
    """
    names: dict[str, str] = {}

    def rewritten(part: Any) -> Any:
        if isinstance(part, list):
            return [rewritten(item) for item in part]
        if not isinstance(part, dict):
            return part
        changed = {key: rewritten(value) for key, value in part.items()}
        target = part.get("$ref")
        if isinstance(target, str) and target.startswith("#") and not target.startswith(_DEFINED):
            changed["$ref"] = "#/$defs/" + names.setdefault(target, f"__{len(names)}")
        return changed

    root: dict[str, Any] = rewritten(dict(schema))
    places = {name: _at(root, target) for target, name in names.items()}
    if not places or not isinstance(root.get("$defs", {}), dict):
        return root
    return root | {"$defs": root.get("$defs", {}) | {k: v for k, v in places.items() if v is not None}}


def _at(root: dict[str, Any], target: str) -> Any:
    """What a JSON pointer leads to, without the definitions; None when it leads nowhere."""
    found: Any = {key: value for key, value in root.items() if key not in _ELSEWHERE}
    for step in target.removeprefix("#").split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return found


def _dotted(path: str, *steps: object) -> str:
    return ".".join([*([path] if path else []), *map(str, steps)])


def _closed(schema: dict[str, Any], *, alone: bool = True) -> dict[str, Any]:
    """alone: no other schema says something about the same value; closed schemas exclude each other."""
    alone = alone and not any(key in schema for key in _IN_PLACE)
    shared = set(_shared_definitions(schema)) if alone or "$defs" in schema else set()
    closed = {key: _closed_parts(key, value, shared) for key, value in schema.items()}
    listed = schema.get("properties")
    says_nothing_else = not any(
        key in schema for key in ("additionalProperties", "unevaluatedProperties", "patternProperties")
    )
    if alone and isinstance(listed, dict) and says_nothing_else and _all_listed(schema, listed):
        closed["additionalProperties"] = False
    return closed


def _all_listed(schema: dict[str, Any], listed: dict[str, Any]) -> bool:
    required = schema.get("required") or []
    return isinstance(required, list) and all(name in listed for name in required if isinstance(name, str))


def _closed_parts(key: str, value: Any, shared: set[str]) -> Any:
    if key in _MAPS and isinstance(value, dict):
        return {
            name: _closed(part, alone=key != "dependentSchemas" and f"#/{key}/{name}" not in shared)
            if isinstance(part, dict)
            else part
            for name, part in value.items()
        }
    if key in _LISTS and isinstance(value, list):
        alone = key == "prefixItems"
        return [_closed(part, alone=alone) if isinstance(part, dict) else part for part in value]
    if key in _SINGLES and isinstance(value, dict):
        return _closed(value, alone=key != "not")
    return value


def _shared_definitions(schema: Any) -> Iterator[str]:
    """References that stand beside other keywords about the same value, or in an allOf."""
    if isinstance(schema, list):
        for item in schema:
            yield from _shared_definitions(item)
    elif isinstance(schema, dict):
        beside = any(key in schema for key in ("properties", "allOf", "anyOf", "oneOf"))
        if beside and isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        together = schema.get("allOf")
        for part in together if isinstance(together, list) else ():
            if isinstance(part, dict) and isinstance(part.get("$ref"), str):
                yield part["$ref"]
        for value in schema.values():
            yield from _shared_definitions(value)
