"""How tools are described, and how calls are told from text."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.chat.grammar import Grammar, GrammarCompiler
from engine.chat.tools import CallReader, explained
from engine.types import ChatRequest, JsonFormat, Message, Tool, ToolCall, ToolUse

CLOCK = Tool("get_time", "The time.", '{"type": "object", "properties": {"zone": {"type": "string"}}}')
QUESTION = Message("user", "What time is it?")
CALL = '<tool_call>{"name": "get_time", "arguments": {"zone": "a</tool_call>"}}</tool_call>'


def read(*pieces: str) -> tuple[str, list[tuple[str, str]]]:
    reader = CallReader()
    text = "".join(reader.feed(piece) for piece in pieces) + reader.flush()
    calls, unfinished = reader.calls()
    return text + unfinished, [(call.name, call.arguments) for call in calls]


def test_tools_are_described_in_a_system_message() -> None:
    first, *others = explained([QUESTION], ToolUse((CLOCK,)))

    assert first.role == "system"
    assert '"name": "get_time", "description": "The time."' in first.content
    assert others == [QUESTION]


def test_the_description_follows_the_system_message_of_the_caller() -> None:
    first, *others = explained([Message("system", "Be brief."), QUESTION], ToolUse((CLOCK,)))

    assert first.content.startswith("Be brief.\n\nYou can call tools.")
    assert others == [QUESTION]


def test_tools_that_may_not_be_called_are_not_mentioned() -> None:
    assert explained([QUESTION], ToolUse((CLOCK,), choice="none")) == [QUESTION]


def test_earlier_calls_are_written_as_the_model_writes_them() -> None:
    calls = (ToolCall("c1", "get_time", '{"zone": "UTC"}'), ToolCall("c2", "get_time", "{}"))

    written = explained([QUESTION, Message("assistant", "Let me see.", calls)], None)

    assert written[1] == Message(
        "assistant",
        "Let me see.\n"
        '<tool_call>{"name": "get_time", "arguments": {"zone": "UTC"}}</tool_call>\n'
        '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>',
    )


def test_text_and_calls_are_told_apart() -> None:
    assert read("Let me see. ", CALL, CALL) == (
        "Let me see. ",
        [("get_time", '{"zone": "a</tool_call>"}')] * 2,
    )


@pytest.mark.parametrize(
    ("cut_off", "text", "call"),
    [
        (CALL[:-13], "", ("get_time", '{"zone": "a</tool_call>"}')),
        (CALL[:50], "", ("get_time", '{"zon')),
        ('<tool_call>{"name": "get_time", "arguments": ', "", ("get_time", "")),
        ('<tool_call>{"name": "get_ti', '{"name": "get_ti', None),
    ],
)
def test_a_call_that_the_token_limit_cut_off_is_given_back_as_far_as_it_came(
    cut_off: str, text: str, call: tuple[str, str] | None
) -> None:
    assert read(CALL, cut_off) == (
        text,
        [("get_time", '{"zone": "a</tool_call>"}'), *([call] if call else [])],
    )


@pytest.mark.parametrize(
    "arguments",
    ["not JSON", '{"zone": "UT', "", "[1]", "[" * 100_000, '{"zone": "\\ud800"}'],
    ids=lambda arguments: arguments[:16],
)
def test_broken_arguments_of_an_earlier_call_are_shown_to_the_model_as_json(arguments: str) -> None:
    (written,) = explained([Message("assistant", "", (ToolCall("c1", "get_time", arguments),))], None)

    call = json.loads(written.content.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert json.dumps(call["arguments"]) in (arguments, json.dumps(arguments), "{}")


def test_what_only_looks_like_the_beginning_of_a_call_is_text() -> None:
    assert read("1 <tool", " 2 <tool_c") == ("1 <tool 2 <tool_c", [])


@settings(deadline=None)
@given(st.lists(st.integers(0, 2 * len(CALL)), max_size=8))
def test_the_cut_between_pieces_does_not_matter(cuts: list[int]) -> None:
    whole = "So: " + CALL + CALL
    edges = [0, *sorted(cuts), len(whole)]

    assert read(*(whole[a:b] for a, b in pairwise(edges))) == read(whole)


@pytest.fixture(scope="module")
def compiler(smollm2_folder: Path) -> GrammarCompiler:
    tokenizer_json = (smollm2_folder / "tokenizer.json").read_text(encoding="utf-8")
    return GrammarCompiler(tokenizer_json, 49152, {0, 2})


Encode = Callable[[str], list[int]]


@pytest.fixture(scope="module")
def encode(smollm2_folder: Path) -> Encode:
    from tokenizers import Tokenizer

    return lambda text: Tokenizer.from_file(str(smollm2_folder / "tokenizer.json")).encode(text).ids


def accepted(grammar: Grammar | None, tokens: list[int]) -> int:
    """How many tokens the grammar lets the model write."""
    assert grammar
    for n, token in enumerate(tokens):
        if np.isneginf(grammar.masked(np.zeros(49152, dtype=np.float32))[token]):
            return n
        grammar.accept(token)
    return len(tokens)


@pytest.mark.parametrize(
    "answer",
    [
        "It is noon.<|im_end|>",
        'Let me see.\n<tool_call>{"name": "get_time", "arguments": {"zone": "UTC"}}</tool_call><|im_end|>',
    ],
)
def test_with_auto_both_text_and_calls_may_be_written(
    compiler: GrammarCompiler, encode: Encode, answer: str
) -> None:
    tokens = encode(answer)

    assert accepted(compiler.compile(ChatRequest((QUESTION,), tool_use=ToolUse((CLOCK,)))), tokens) == len(
        tokens
    )


@pytest.mark.parametrize(
    "bad_part",
    ["get_tim3", '", "args', "arguments: "],
)
def test_with_auto_a_call_once_begun_must_be_right(
    compiler: GrammarCompiler, encode: Encode, bad_part: str
) -> None:
    good = 'So: <tool_call>{"name": "'
    tokens = encode(good + bad_part)

    grammar = compiler.compile(ChatRequest((QUESTION,), tool_use=ToolUse((CLOCK,))))

    assert accepted(grammar, tokens) < len(tokens)


def test_with_auto_a_call_or_a_document_may_be_written(compiler: GrammarCompiler, encode: Encode) -> None:
    request = ChatRequest(
        (QUESTION,), tool_use=ToolUse((CLOCK,)), json_format=JsonFormat('{"const": {"a": 1}}')
    )

    for answer, right in [('{"a": 1}', True), ('{"a": 2}', False), ("no", False)]:
        tokens = encode(answer + "<|im_end|>")
        assert (accepted(compiler.compile(request), tokens) == len(tokens)) is right, answer


def test_names_and_descriptions_survive_any_characters(compiler: GrammarCompiler, encode: Encode) -> None:
    name = 'say "hi" \\ \u00fc \n'
    use = ToolUse((Tool(name, "", '{"type": "object"}'),), choice="required")
    tokens = encode(f'<tool_call>{{"name": {json.dumps(name)}, "arguments": {{}}}}</tool_call><|im_end|>')

    assert accepted(compiler.compile(ChatRequest((QUESTION,), tool_use=use)), tokens) == len(tokens)
