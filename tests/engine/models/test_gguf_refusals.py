"""What cannot be imported is refused in words that help."""

from pathlib import Path

import gguf
import pytest

from engine.errors import ModelSupplyError
from engine.models.decoders.convert import convert
from engine.models.progress import silent
from tests.engine.models.gguf_files import TinyGguf


def refusal(file: Path) -> str:
    target = file.parent / "imported"
    target.mkdir()
    with pytest.raises(ModelSupplyError) as refused:
        convert(file, target, progress=silent)
    return str(refused.value)


@pytest.mark.parametrize("kept", [0.0001, 0.001, 0.003, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_said_to_be_incomplete(kept: float, tmp_path: Path) -> None:
    file = TinyGguf().write(tmp_path / "cut.gguf")
    with file.open("r+b") as whole:
        whole.truncate(int(kept * file.stat().st_size))

    assert "cut.gguf is not a complete, valid GGUF file" in refusal(file)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_another_kind_of_file_is_said_to_be_no_gguf(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(content)

    assert "other.gguf is not a complete, valid GGUF file" in refusal(file)


def test_a_missing_file_is_said_to_be_unreadable(tmp_path: Path) -> None:
    assert "none.gguf cannot be read" in refusal(tmp_path / "none.gguf")


def test_an_unknown_architecture_is_named_with_the_supported_ones(tmp_path: Path) -> None:
    file = tmp_path / "bert.gguf"
    writer = gguf.GGUFWriter(file, "bert")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    message = refusal(file)

    assert "'bert'" in message
    assert "Supported: llama, phi3." in message


def test_an_unknown_quantisation_is_named_with_the_supported_ones(tmp_path: Path) -> None:
    message = refusal(TinyGguf(quantisation="Q5_0").write(tmp_path / "q5.gguf"))

    assert "quantised as Q5_0" in message
    assert "Supported: F32, F16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K." in message


def test_a_model_without_a_chat_template_is_said_not_to_be_a_chat_model(tmp_path: Path) -> None:
    message = refusal(TinyGguf(chat_template=None).write(tmp_path / "base.gguf"))

    assert "no chat template" in message


def test_tensors_the_architecture_does_not_know_are_refused(tmp_path: Path) -> None:
    """Left out, a bias would give a model that runs and talks nonsense."""
    message = refusal(TinyGguf(extra_tensor="blk.0.attn_q.bias").write(tmp_path / "biased.gguf"))

    assert "'blk.0.attn_q.bias'" in message


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("llama.attention.head_count", 6, "layers.0.qkv"),
        ("llama.feed_forward_length", 1024, "layers.0.gate is (512, 256)"),
        ("llama.block_count", 3, "'blk.2.attn_norm.weight' is missing"),
        ("tokenizer.ggml.eos_token_id", 70_000, "eos token has number 70000"),
    ],
)
def test_metadata_that_contradicts_the_tensors_is_named(
    key: str, value: int, named: str, tmp_path: Path
) -> None:
    message = refusal(TinyGguf(metadata={key: value}).write(tmp_path / "wrong.gguf"))

    assert "is not a complete, valid GGUF file" in message
    assert named in message


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("llama.rope.scaling.type", "yarn", "position embedding scaled by 'yarn'"),
        ("llama.rope.dimension_count", 32, "position embedding on a part of each head"),
        ("llama.expert_count", 8, "mixture of experts"),
        ("tokenizer.ggml.pre", "qwen2", "splits text as 'qwen2' does"),
        ("tokenizer.ggml.model", "bert", "vocabulary of kind 'bert'"),
    ],
)
def test_variations_are_refused_by_name(key: str, value: str | int, named: str, tmp_path: Path) -> None:
    assert named in refusal(TinyGguf(metadata={key: value}).write(tmp_path / "variation.gguf"))
