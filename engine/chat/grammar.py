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
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from engine.chat.runtimes.runtime import Logits
from engine.chat.schemas import endless_reference, expressible
from engine.chat.tools import CALL_BEGINS, CALL_ENDS, may_call, must_call
from engine.errors import BadInput
from engine.types import ChatRequest, JsonFormat, Tool, ToolUse

_ANY_OBJECT = '{"type": "object"}'
_MOST_CALLS = 16


class Grammar:
    """Follows one answer.

    loosened: what the schemas ask for and the grammar cannot hold the answer to, such as
    "get_weather: city.format".
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary_size: int,
        end_tokens: Sequence[int],
        loosened: tuple[str, ...] = (),
    ) -> None:
        """end_tokens: of these the matcher knows the first. Raises BadInput for one without any answer."""
        self.loosened = loosened
        self._matcher = matcher
        self._end_tokens = end_tokens
        self._bits = allocate_token_bitmask(1, vocabulary_size)
        self._fill()

    @property
    def complete(self) -> bool:
        """Nothing can follow."""
        return self._matcher.is_stopped()

    def masked(self, logits: Logits) -> Logits:
        """Minus infinity for every token that may not come next. Raises BadInput."""
        self._fill()
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: logits.size]
        allowed[self._end_tokens] = allowed[self._end_tokens[0]]
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        self._matcher.consume_token(self._end_tokens[0] if token in self._end_tokens else token)
        self._check()

    def _fill(self) -> None:
        fill_next_token_bitmask(self._matcher, self._bits)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _unusable(self._matcher.get_error())


class GrammarCompiler:
    def __init__(self, tokenizer_json: str, vocabulary_size: int, end_tokens: Collection[int]) -> None:
        self._tokenizer_json = tokenizer_json
        self._vocabulary_size = vocabulary_size
        self._end_tokens = sorted(end_tokens)

    def compile(self, request: ChatRequest) -> Grammar | None:
        """What the request allows; None if that is everything. Raises BadInput."""
        rules = _Rules(request)
        if rules.text is None:
            return None
        grammar = LLMatcher.grammar_from_lark(rules.text)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())
        if matcher.is_error():
            raise _unusable(matcher.get_error())
        return Grammar(matcher, self._vocabulary_size, self._end_tokens, tuple(rules.loosened))

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """Made by the first request that needs it (half a second for 49,152 tokens)."""
        # One end token: llguidance 1.6, the last with wheels for glibc 2.28, takes no more.
        return LLTokenizer(self._tokenizer_json, n_vocab=self._vocabulary_size, eos_token=self._end_tokens[0])


class _Rules:
    """text: the grammar in llguidance's dialect of Lark; None if everything is allowed."""

    def __init__(self, request: ChatRequest) -> None:
        """Raises BadInput."""
        self.loosened: list[str] = []
        self.text = self._of(request)

    def _of(self, request: ChatRequest) -> str | None:
        document = "%json " + self._document(request.json_format) if request.json_format else None
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
        return start + f"more: {begins} call\n" + self._calls(use)

    def _calls(self, use: ToolUse) -> str:
        callable_ = {n: tool for n, tool in enumerate(use.tools) if use.only in (None, tool.name)}
        if not callable_:
            raise BadInput(f"{use.only!r} must be called, but is not among the tools.", field="tool_use")
        alternatives = " | ".join(f"call_{n}" for n in callable_)
        rules = [f"call: {alternatives}\n"]
        for n, tool in callable_.items():
            name = _quoted(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
            rules.append(f"call_{n}: {name} %json {self._arguments(n, tool)} {_quoted('}' + CALL_ENDS)}\n")
        return "".join(rules)

    def _document(self, json_format: JsonFormat) -> str:
        wanted = _parsed(json_format.schema or _ANY_OBJECT, "The answer", field="json_format")
        return _as_it_is(wanted, "The answer", field="json_format")

    def _arguments(self, index: int, tool: Tool) -> str:
        """Agents pass on schemas that others wrote: what cannot be expressed there is loosened and said."""
        whose = f"Tool {tool.name!r}"
        wanted = _parsed(tool.parameters, whose, field="tools", index=index)
        if tool.strict:
            return _as_it_is(wanted, whose, field="tools", index=index)
        nearest = expressible(wanted)
        self.loosened += [f"{tool.name}: {lost}" for lost in nearest.loosened]
        return nearest.schema


def _parsed(schema: str, whose: str, *, field: str, index: int | None = None) -> dict[str, Any]:
    try:
        parsed: Any = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{whose}: the schema is not JSON: {error}", field=field, index=index) from None
    if not isinstance(parsed, dict):
        raise BadInput(f"{whose}: the schema must be a JSON object.", field=field, index=index)
    if endless_reference(parsed):
        raise BadInput(f"{whose}: a $ref of the schema leads back to itself.", field=field, index=index)
    return parsed


def _as_it_is(wanted: dict[str, Any], whose: str, *, field: str, index: int | None = None) -> str:
    """Raises BadInput naming what cannot be expressed."""
    nearest = expressible(wanted)
    if nearest.loosened:
        lost = nearest.loosened[0]
        raise BadInput(
            f"{whose} cannot be held to {lost.keyword!r}"
            + (f" (in {lost.path})" if lost.path else "")
            + f" of this JSON Schema: {_one_line(lost.reason)}",
            field=field,
            index=index,
        )
    return nearest.schema


def _limits() -> LLParserLimits:
    """Items: an object of N optional properties takes 4 N of them; its mask is then made in 2 ms for 2,000.

    verbose_errors would put the whole grammar into the message.
    """
    return LLParserLimits(max_items_in_row=20_000, verbose_errors=False)


def _unusable(problem: str) -> BadInput:
    return BadInput(f"The schemas of this request cannot be used together: {_one_line(problem)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _quoted(text: str) -> str:
    """A string literal of Lark."""
    return json.dumps(text)
