"""Tokens back to text."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from engine.chat.vocabulary import TextStream, Vocabulary

TEXTS = [
    "The capital of France is Paris.",
    "def f(x):\n\treturn  x   # twice\n\n\n",
    "日本語のテキスト, 中文, 한국어, ไทย",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, e\u0301 accent",
    "NUL \0, DEL \x7f, BOM \ufeff",
]


@pytest.fixture(scope="module")
def tokenizer(smollm2_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(smollm2_folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def vocabulary(smollm2_folder: Path) -> Vocabulary:
    return Vocabulary((smollm2_folder / "tokenizer.json").read_text(encoding="utf-8"))


def sentencepiece_vocabulary(*tokens: str) -> Vocabulary:
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    return Vocabulary(
        json.dumps(
            {
                "decoder": {"type": "Sequence", "decoders": decoders},
                "model": {"vocab": {token: n for n, token in enumerate(tokens)}},
                "added_tokens": [],
            }
        )
    )


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_tokenising_and_streaming(
    tokenizer: Tokenizer, vocabulary: Vocabulary, text: str
) -> None:
    stream = TextStream(vocabulary)

    pieces = [stream.feed(token) for token in tokenizer.encode(text).ids]

    assert "".join(pieces) == text


@pytest.mark.parametrize("text", TEXTS)
def test_no_piece_holds_part_of_a_character(tokenizer: Tokenizer, vocabulary: Vocabulary, text: str) -> None:
    stream = TextStream(vocabulary)

    pieces = [stream.feed(token) for token in tokenizer.encode(text).ids]

    assert "\ufffd" not in "".join(pieces)


def test_control_tokens_are_not_text(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    control = tokenizer.token_to_id("<|im_start|>")
    assert control is not None
    assert TextStream(vocabulary).feed(control) == ""


def test_bytes_that_are_no_utf8_become_the_replacement_character() -> None:
    stream = TextStream(sentencepiece_vocabulary("<0xFF>", "a"))

    assert [stream.feed(0), stream.feed(1)] == ["\ufffd", "a"]


def test_sentencepiece_bytes_join_to_a_character() -> None:
    stream = TextStream(sentencepiece_vocabulary("<0xE2>", "<0x82>", "<0xAC>"))

    assert [stream.feed(n) for n in range(3)] == ["", "", "€"]


def test_sentencepiece_writes_no_space_in_front_of_the_answer() -> None:
    stream = TextStream(sentencepiece_vocabulary("▁Paris", "▁is"))

    assert [stream.feed(0), stream.feed(1), stream.feed(0)] == ["Paris", " is", " Paris"]
