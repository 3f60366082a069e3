"""Keeps an answer within a grammar: JSON of a given schema, calls of given tools.

llguidance compiles the grammar and says before each token which tokens may come; the sampler chooses among
them. (onnxruntime-genai has llguidance built in, but binds a grammar to a Generator for life, which would
rule out taking over the memory of an earlier turn.)
"""

import json
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from engine.chat.runtimes.runtime import Logits
from engine.chat.tools import CALL_BEGINS, CALL_ENDS, may_call, must_call
from engine.errors import BadInput, EngineError
from engine.types import ChatRequest, JsonFormat, ToolUse

_ONE_WAY_TO_WRITE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Small models fall into endless whitespace where JSON allows it."""

_ANY_OBJECT = '{"type": "object"}'
_MOST_CALLS = 16


class Grammar:
    """Follows one answer."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int, end_tokens: Sequence[int]) -> None:
        """end_tokens: of these the matcher knows the first."""
        self._matcher = matcher
        self._end_tokens = end_tokens
        self._bits = allocate_token_bitmask(1, vocabulary_size)

    @property
    def complete(self) -> bool:
        """Nothing can follow."""
        return self._matcher.is_stopped()

    def masked(self, logits: Logits) -> Logits:
        """Minus infinity for every token that may not come next. Raises EngineError."""
        fill_next_token_bitmask(self._matcher, self._bits)
        self._check()
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: logits.size]
        allowed[self._end_tokens] = allowed[self._end_tokens[0]]
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        self._matcher.consume_token(self._end_tokens[0] if token in self._end_tokens else token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"The grammar of this answer became too complex: {self._matcher.get_error()}")


class GrammarCompiler:
    def __init__(self, tokenizer_json: str, vocabulary_size: int, end_tokens: Collection[int]) -> None:
        self._tokenizer_json = tokenizer_json
        self._vocabulary_size = vocabulary_size
        self._end_tokens = sorted(end_tokens)

    def compile(self, request: ChatRequest) -> Grammar | None:
        """What the request allows; None if that is everything. Raises BadInput."""
        rules = _rules(request)
        if rules is None:
            return None
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(rules), log_level=0)
        if matcher.is_error():
            raise BadInput(f"This combination of schemas cannot be used: {_first_line(matcher.get_error())}")
        return Grammar(matcher, self._vocabulary_size, self._end_tokens)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """Made by the first request that needs it (half a second for 49,152 tokens)."""
        # One end token: llguidance 1.6, the last with wheels for glibc 2.28, takes no more.
        return LLTokenizer(self._tokenizer_json, n_vocab=self._vocabulary_size, eos_token=self._end_tokens[0])


def _rules(request: ChatRequest) -> str | None:
    """The grammar in llguidance's dialect of Lark."""
    document = "%json " + _document_schema(request.json_format) if request.json_format else None
    use = request.tool_use
    if use is None or not may_call(use):
        return f"start: {document}\n" if document else None
    calls = "call" + (f" more{{0,{_MOST_CALLS - 1}}}" if use.parallel else "")
    begins = _quoted(CALL_BEGINS)
    if must_call(use):
        start = f"start: {begins} {calls}\n"
    elif document:
        start = f"start: {document} | {begins} {calls}\n"
    else:
        # "lazy": the text ends where it first says that a call begins.
        start = f"start: TEXT | begin {calls}\nTEXT: /(.|\\n)*/\nbegin[lazy]: TEXT {begins}\n"
    return start + f"more: {begins} call\n" + _call_rules(use)


def _call_rules(use: ToolUse) -> str:
    callable_ = {n: tool for n, tool in enumerate(use.tools) if use.only in (None, tool.name)}
    if not callable_:
        raise BadInput(f"{use.only!r} must be called, but is not among the tools.", field="tool_use")
    alternatives = " | ".join(f"call_{n}" for n in callable_)
    rules = [f"call: {alternatives}\n"]
    for n, tool in callable_.items():
        schema = _checked(tool.parameters, f"Tool {tool.name!r}", field="tools", index=n)
        name = _quoted(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
        rules.append(f"call_{n}: {name} %json {schema} {_quoted('}' + CALL_ENDS)}\n")
    return "".join(rules)


def _document_schema(json_format: JsonFormat) -> str:
    return _checked(json_format.schema or _ANY_OBJECT, "The answer", field="json_format")


def _checked(schema: str, whose: str, *, field: str, index: int | None = None) -> str:
    """The schema, and how to write its documents. Raises BadInput naming what cannot be expressed."""
    try:
        parsed: Any = json.loads(schema)
    except json.JSONDecodeError as error:
        raise BadInput(f"{whose}: the schema is not JSON: {error}", field=field, index=index) from None
    if not isinstance(parsed, dict):
        raise BadInput(f"{whose}: the schema must be a JSON object.", field=field, index=index)
    complete = json.dumps(parsed | {"x-guidance": _ONE_WAY_TO_WRITE})
    problem = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(complete))
    if problem and not problem.startswith("WARNING"):
        reason = f"{whose}: this JSON Schema cannot be used: {_first_line(problem)}"
        raise BadInput(reason, field=field, index=index)
    return complete


def _first_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _quoted(text: str) -> str:
    """A string literal of Lark."""
    return json.dumps(text)
