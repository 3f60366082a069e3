"""SmolLM2, imported from its GGUF file, compared with independent readings of the same file."""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engine.models.decoders.convert import GgufInfo, convert
from engine.models.progress import silent
from tests.engine.models.gguf_reference import ReferenceModel
from tests.engine.models.gguf_runtime import Runtime

CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
PROMPTS = {
    "fact": CHAT.format("What is the capital of France?"),
    "poem": CHAT.format("Write a haiku about the sea."),
    "emoji": CHAT.format("List five animals as JSON 🙂"),
    "prose": "The three primary colours are",
    "code": "def fibonacci(n):\n    if n <= 1:\n",
    "numbers": "1, 1, 2, 3, 5, 8, 13, 21,",
}
TEXTS = (
    "Hello, world! It's what they'd've said; we'll see.",
    "  two  spaces   three\t\ttabs \n\n\n  lines   ",
    "def f(x):\n    return {'a': x**2}  # 100%\n",
    "12345 3.14159 2024-01-02 ١٢٣ ½ Ⅷ x2y3",
    "日本語のテキスト 中文字符 한국어 العربية עברית",
    "🙂👍🏽👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u200b \u00a0 \u3000",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_start|>",
    "",
)


@dataclass(frozen=True)
class Imported:
    info: GgufInfo
    folder: Path
    runtime: Runtime
    tokenizer: Tokenizer
    reference: ReferenceModel


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("smollm2")
    info = convert(smollm2_gguf, folder, progress=silent)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Imported(info, folder, Runtime(folder), tokenizer, ReferenceModel(smollm2_gguf))


@pytest.fixture(scope="module")
def plain_bpe(smollm2: Imported) -> "PlainBpe":
    return PlainBpe(smollm2.reference)


def test_the_folder_says_what_the_file_said(smollm2: Imported) -> None:
    assert smollm2.info == GgufInfo(
        architecture="llama",
        name="Smollm2 135M 8k Lc100K Mix1 Ep2",
        parameters=134_515_008,
        context_tokens=8192,
    )
    files = {file.name for file in smollm2.folder.iterdir()}
    assert files == {
        "model.onnx",
        "model.onnx.data",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_logits_are_those_of_a_float32_forward_pass(smollm2: Imported, prompt: str) -> None:
    tokens = smollm2.tokenizer.encode(prompt).ids

    ours = smollm2.runtime.next_logits(tokens)

    expected = smollm2.reference.logits(tokens)[-1]
    assert ours.argsort()[-5:].tolist() == expected.argsort()[-5:].tolist()
    np.testing.assert_allclose(ours, expected, atol=0.01)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_greedy_continuations_are_those_of_a_float32_forward_pass(smollm2: Imported, prompt: str) -> None:
    tokens = smollm2.tokenizer.encode(prompt).ids

    written = smollm2.runtime.greedy(tokens, 24)

    assert smollm2.reference.shortfall(tokens, written) < 0.01


def test_the_capital_of_france_is_paris(smollm2: Imported) -> None:
    """The two best first tokens are 0.08 apart, less than int8 arithmetic would blur them."""
    tokens = smollm2.tokenizer.encode(PROMPTS["fact"]).ids

    answer = smollm2.tokenizer.decode(smollm2.runtime.greedy(tokens, 24))

    assert answer == "The capital of France is Paris."


def test_both_end_tokens_end_an_answer(smollm2: Imported) -> None:
    config = json.loads((smollm2.folder / "genai_config.json").read_text(encoding="utf-8"))

    assert config["model"]["eos_token_id"] == [
        smollm2.tokenizer.token_to_id("<|im_end|>"),
        smollm2.tokenizer.token_to_id("<|endoftext|>"),
    ]


def test_a_prompt_read_in_slices_and_after_a_rewind_gives_the_same_answer(smollm2: Imported) -> None:
    """The logits cover the last token only; nothing that a scheduler does with a Generator needs more."""
    tokens = smollm2.tokenizer.encode(PROMPTS["poem"]).ids
    expected = smollm2.runtime.greedy(tokens, 24)

    generator = smollm2.runtime.generator()
    for start in range(0, len(tokens), 7):
        generator.append_tokens(np.array([tokens[start : start + 7]], np.int32))
    sliced = smollm2.runtime.continue_greedily(generator, 24)
    generator.rewind_to(10)
    generator.append_tokens(np.array([tokens[10:]], np.int32))
    rewound = smollm2.runtime.continue_greedily(generator, 24)

    assert (sliced, rewound) == (expected, expected)


def test_the_runtime_renders_the_files_chat_template(smollm2: Imported) -> None:
    messages = json.dumps([{"role": "user", "content": "What is the capital of France?"}])

    rendered = genai.Tokenizer(smollm2.runtime.model).apply_chat_template(
        messages, add_generation_prompt=True
    )

    assert rendered == PROMPTS["fact"]


def test_the_tokenizer_has_the_files_vocabulary_and_merges(smollm2: Imported) -> None:
    written = json.loads((smollm2.folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens, merges = (smollm2.reference.meta(f"tokenizer.ggml.{key}") for key in ("tokens", "merges"))

    assert smollm2.tokenizer.get_vocab() == {token: number for number, token in enumerate(tokens)}
    assert [" ".join(merge) for merge in written["merges"]] == merges


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_tokens_of_a_plain_bpe_and_back(
    smollm2: Imported, plain_bpe: "PlainBpe", text: str
) -> None:
    ids = smollm2.tokenizer.encode(text).ids

    assert ids == plain_bpe.encode(text)
    assert smollm2.tokenizer.decode(ids, skip_special_tokens=False) == text


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=40))
def test_any_text_becomes_the_tokens_of_a_plain_bpe(
    smollm2: Imported, plain_bpe: "PlainBpe", text: str
) -> None:
    assert smollm2.tokenizer.encode(text).ids == plain_bpe.encode(text)


class PlainBpe:
    """Byte-level BPE as llama.cpp's `smollm` does it: numerals alone, then the pattern of GPT-2, then merges.

    A few bytes, such as 0x1D, are not in SmolLM2's vocabulary: they are left out first, as Hugging Face does.
    """

    CONTROL = 3
    LETTERS = "[Lstrevmld]"
    PATTERN = re.compile(
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?{LETTERS}+| ?N+| ?[^\sNLstrevmld]+|\s+(?!\S)|\s+",
    )
    SPACES = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
        chr(code) for code in range(0x2000, 0x200B)
    }

    def __init__(self, model: ReferenceModel) -> None:
        tokens, types = model.meta("tokenizer.ggml.tokens"), model.meta("tokenizer.ggml.token_type")
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.ranks = {tuple(m.split(" ")): i for i, m in enumerate(model.meta("tokenizer.ggml.merges"))}
        special = [
            re.escape(token) for token, kind in zip(tokens, types, strict=True) if kind == self.CONTROL
        ]
        self.special = re.compile(f"({'|'.join(special)})")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(self.special.split(text)):
            ids += [self.ids[part]] if i % 2 else [self.ids[piece] for piece in self.pieces(part)]
        return ids

    def pieces(self, text: str) -> Iterator[str]:
        kinds = "".join(map(self.kind, text))
        for run in re.finditer("N|[^N]+", kinds):
            for word in self.PATTERN.finditer(run.group()):
                start, end = run.start() + word.start(), run.start() + word.end()
                yield from self.merge(text[start:end])

    def kind(self, char: str) -> str:
        """One character that stands for its class, so that `re`, which knows no classes, can match."""
        category = unicodedata.category(char)[0]
        if char in self.SPACES:
            return " " if char == " " else "\t"
        if category == "L":
            return char if char in "strevmld" else "L"
        return "N" if category == "N" else "'" if char == "'" else "!"

    def merge(self, word: str) -> Sequence[str]:
        parts = [char for char in map(byte_character, word.encode()) if char in self.ids]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        return parts


def byte_character(byte: int) -> str:
    """GPT-2 writes each byte as a visible character."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [code for code in range(256) if code not in visible]
    return chr(byte) if byte in visible else chr(256 + hidden.index(byte))
