"""Phi-3's kind of vocabulary, compared with a plain reading of how SentencePiece merges."""

import itertools
import re
from collections.abc import Iterator

import pytest
from gguf import TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engine.models.decoders.convert import convert
from engine.models.progress import silent
from tests.engine.models.gguf_files import TinyGguf, Vocabulary, sentence_piece_vocabulary

TEXTS = (
    "hello the hen in there",
    "  two  spaces   three ",
    "                 seventeen spaces",
    f"{14 * ' '}a{15 * ' '}a{30 * ' '}a{47 * ' '}a{62 * ' '}a{99 * ' '}",
    "éa 🙂 日本 \t tab\nline",
    "12345 A.S.",
    "<|user|>\nhello<|end|>\n<|assistant|>\n",
    "<|system|>  the<|end|> \n\n the <|endoftext|>\n the",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("phi3")
    file = TinyGguf(architecture="phi3", kv_heads=4, layers=1).write(folder / "tiny.gguf")
    convert(file, folder, progress=silent)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_tokens_of_plain_sentence_piece(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids

    assert ids == PlainSentencePiece(sentence_piece_vocabulary()).encode(text)


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("  helotinras.é🙂▁\n"), max_size=40))
def test_any_text_becomes_the_tokens_of_plain_sentence_piece(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids

    assert ids == PlainSentencePiece(sentence_piece_vocabulary()).encode(text)


@pytest.mark.parametrize("text", [text for text in TEXTS if "<|" not in text])
def test_tokens_become_the_text_again(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_vocabulary_is_that_of_the_file(tokenizer: Tokenizer) -> None:
    tokens = sentence_piece_vocabulary().tokens

    assert tokenizer.get_vocab() == {token: number for number, token in enumerate(tokens)}


def test_a_text_starts_with_the_bos_token_as_the_file_demands(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("the").tokens == ["<s>", "▁the"]


class PlainSentencePiece:
    """Merges the best-scored pair, the leftmost first; characters without a piece become bytes."""

    keeps_space = frozenset({"<unk>", "<s>", "<|endoftext|>"})

    def __init__(self, vocabulary: Vocabulary) -> None:
        rows = list(zip(vocabulary.tokens, vocabulary.types, vocabulary.scores or [], strict=True))
        self.ids = {token: number for number, token in enumerate(vocabulary.tokens)}
        self.scores = {token: score for token, kind, score in rows if kind == TokenType.NORMAL}
        kinds = (TokenType.CONTROL, TokenType.USER_DEFINED)
        special = [
            re.escape(token) + ("" if token in self.keeps_space else r"\s*")
            for token, kind, _ in rows
            if kind in kinds
        ]
        self.special = re.compile(f"({'|'.join(special)})")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(self.special.split(text)):
            ids += [self.ids[part.rstrip()]] if i % 2 else self.ordinary(part)
        return ids

    def ordinary(self, text: str) -> Iterator[int]:
        for part in self.merge(list("▁" + text.replace(" ", "▁")) if text else []):
            if part in self.scores:
                yield self.ids[part]
            else:
                yield from (self.ids[f"<0x{byte:02X}>"] for byte in part.encode())

    def merge(self, parts: list[str]) -> list[str]:
        while True:
            unions = [left + right for left, right in itertools.pairwise(parts)]
            known = [(-self.scores[union], at) for at, union in enumerate(unions) if union in self.scores]
            if not known:
                return parts
            _, at = min(known)
            parts[at : at + 2] = [unions[at]]
