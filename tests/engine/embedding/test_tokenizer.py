"""What becomes of texts and token ids before a model sees them."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.embedding.tokenizer import QUERY_INSTRUCTION, TextTokenizer, TokenizedBatch
from engine.errors import BadInput, ContextTooLong, ModelSupplyError
from engine.types import InputType

CLS, SEP, HELLO, WORLD = 101, 102, 7592, 2088


@pytest.fixture(scope="module")
def tokenizer(bge_folder: Path) -> TextTokenizer:
    return TextTokenizer.load(bge_folder, 512)


def id_lists(batch: TokenizedBatch) -> list[list[int]]:
    return [ids.tolist() for ids in batch.ids]


@pytest.mark.parametrize(
    "given",
    [
        "Hello world",
        "  hello\nWORLD\t",
        "hello\0 world",
        [HELLO, WORLD],
        [CLS, HELLO, WORLD],
        [CLS, HELLO, WORLD, SEP],
    ],
)
def test_every_spelling_of_a_text_becomes_the_same_ids(
    tokenizer: TextTokenizer, given: str | list[int]
) -> None:
    assert id_lists(tokenizer.encode_batch([given])) == [[CLS, HELLO, WORLD, SEP]]


def test_texts_and_token_ids_may_be_mixed_and_keep_their_order(tokenizer: TextTokenizer) -> None:
    batch = tokenizer.encode_batch(["hello", (WORLD,), "world"])

    assert id_lists(batch) == [[CLS, HELLO, SEP], [CLS, WORLD, SEP], [CLS, WORLD, SEP]]


def test_a_query_gets_the_instruction_in_front(tokenizer: TextTokenizer) -> None:
    query = tokenizer.encode_batch(["how do I run a model?"], input_type="query")

    assert id_lists(query) == id_lists(tokenizer.encode_batch([f"{QUERY_INSTRUCTION}how do I run a model?"]))


def test_a_query_of_token_ids_gets_the_instruction_too(tokenizer: TextTokenizer) -> None:
    ids, text = ([[CLS, HELLO, SEP]], ["hello"])

    assert id_lists(tokenizer.encode_batch(ids, input_type="query")) == id_lists(
        tokenizer.encode_batch(text, input_type="query")
    )


@pytest.mark.parametrize("blank", ["", "   ", "\n\t", "\0", "\u200b", [], [CLS, SEP]])
@pytest.mark.parametrize("input_type", ["document", "query"])
def test_an_input_without_text_is_refused_by_its_index(
    tokenizer: TextTokenizer, blank: str | list[int], input_type: InputType
) -> None:
    with pytest.raises(BadInput, match=r"^Input 1 has no text") as refused:
        tokenizer.encode_batch(["hello", blank], input_type=input_type)

    assert refused.value.field == "inputs"


def test_half_a_surrogate_pair_is_refused_by_its_index(tokenizer: TextTokenizer) -> None:
    with pytest.raises(BadInput, match=r"^Input 1 is not valid Unicode"):
        tokenizer.encode_batch(["hello", "\ud83d"])


@pytest.mark.parametrize("token", [-1, 30522, 2**40])
def test_a_token_id_outside_the_vocabulary_is_refused(tokenizer: TextTokenizer, token: int) -> None:
    with pytest.raises(BadInput, match=rf"^Input 0 has the token id {token}.* 0 to 30521"):
        tokenizer.encode_batch([[HELLO, token]])


def test_the_longest_text_that_fits_is_not_truncated(tokenizer: TextTokenizer) -> None:
    batch = tokenizer.encode_batch(["hello " * 510], on_overflow="truncate")

    assert id_lists(batch) == [[CLS, *[HELLO] * 510, SEP]]
    assert batch.truncated == ()


@pytest.mark.parametrize("given", ["hello " * 511, [CLS, *[HELLO] * 511, SEP]])
def test_a_text_that_is_too_long_is_refused_with_both_numbers(
    tokenizer: TextTokenizer, given: str | Sequence[int]
) -> None:
    with pytest.raises(ContextTooLong, match=r"^Input 1 has 513 tokens.* at most 512") as refused:
        tokenizer.encode_batch(["hello", given])

    assert (refused.value.limit_tokens, refused.value.actual_tokens, refused.value.field) == (
        512,
        513,
        "inputs",
    )


def test_truncation_keeps_the_start_and_says_which_inputs_were_cut(tokenizer: TextTokenizer) -> None:
    batch = tokenizer.encode_batch(["world " + "hello " * 600, "hello"], on_overflow="truncate")

    assert id_lists(batch) == [[CLS, WORLD, *[HELLO] * 509, SEP], [CLS, HELLO, SEP]]
    assert batch.truncated == (0,)


def test_the_instruction_counts_towards_the_limit(tokenizer: TextTokenizer) -> None:
    batch = tokenizer.encode_batch(["hello " * 510], input_type="query", on_overflow="truncate")

    assert [len(ids) for ids in batch.ids] == [512]
    assert batch.truncated == (0,)


def test_a_tokenizer_of_another_kind_of_model_is_refused(smollm2_folder: Path) -> None:
    with pytest.raises(ModelSupplyError, match=r"\[CLS\]"):
        TextTokenizer.load(smollm2_folder, 512)


def test_a_damaged_tokenizer_file_is_named(bge_folder: Path, tmp_path: Path) -> None:
    shutil.copy(bge_folder / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text("utf-8")[:1000], "utf-8")

    with pytest.raises(ModelSupplyError, match=r"tokenizer\.json cannot be read"):
        TextTokenizer.load(tmp_path, 512)


def test_tokenising_loads_no_native_runtime() -> None:
    code = "import sys, engine.embedding.tokenizer; print(sorted({'onnx', 'onnxruntime'} & set(sys.modules)))"

    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert finished.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "text", ["word " * 1_600_000, "\u4e2d" * 2_000_000, "a-" * 3_000_000], ids=["words", "no space", "dashes"]
)
def test_of_a_text_far_beyond_the_context_only_the_beginning_is_read(
    tokenizer: TextTokenizer, text: str
) -> None:
    with pytest.raises(ContextTooLong, match=r"^Input 1 has at least \d+ tokens.* at most 512") as refused:
        tokenizer.encode_batch(["hello", text])

    assert 4 * 512 < refused.value.actual_tokens < 20_000


@pytest.mark.parametrize("text", ["hello" + " " * 1_000_000, "x" * 1_000_000], ids=["spaces", "one word"])
def test_a_long_text_of_few_tokens_is_read_whole(tokenizer: TextTokenizer, text: str) -> None:
    assert len(tokenizer.encode_batch([text]).ids[0]) < 512


def test_the_beginning_of_a_truncated_text_is_that_of_the_whole_text(tokenizer: TextTokenizer) -> None:
    words = " ".join(f"word{n}" for n in range(20_000))

    (cut,) = tokenizer.encode_batch([words], on_overflow="truncate").ids

    assert list(cut[:-1]) == tokenizer.tokenize(words, add_special=True)[:511]
