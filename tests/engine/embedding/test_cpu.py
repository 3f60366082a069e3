"""The CPU embedder against float32 vectors made with transformers, and against itself in other batches."""

import base64
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from benchmarks.peers.float32_model import write_float32_onnx
from engine.embedding.cpu.embedder import CpuEmbedder
from engine.embedding.cpu.graph import derived_graph
from engine.embedding.tokenizer import TextTokenizer
from engine.errors import ModelSupplyError
from engine.models.encoders.bert import BertWeights, load_weights
from tests.golden import GOLDEN

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    texts: tuple[str, ...]
    token_counts: tuple[int, ...]
    vectors: Vectors


@pytest.fixture(scope="module")
def golden() -> Golden:
    items = GOLDEN["items"]
    vectors = [np.frombuffer(base64.b64decode(item["vector_f32_base64"]), "<f4") for item in items]
    return Golden(
        tuple(item["text"] for item in items), tuple(item["tokens"] for item in items), np.stack(vectors)
    )


@pytest.fixture(scope="module")
def golden_ids(bge_folder: Path, golden: Golden) -> tuple[NDArray[np.int32], ...]:
    return TextTokenizer.load(bge_folder, 512).encode_batch(golden.texts, on_overflow="truncate").ids


@pytest.fixture(scope="module")
def embedder(bge_folder: Path) -> CpuEmbedder:
    return CpuEmbedder(derived_graph(bge_folder), threads=2, lanes=1)


@pytest.fixture
def copied_folder(bge_folder: Path, tmp_path: Path) -> Path:
    shutil.copy(bge_folder / "model.onnx", tmp_path)
    return tmp_path


def cosines(a: Vectors, b: Vectors) -> Vectors:
    return np.asarray((a * b).sum(axis=1))


def test_texts_have_the_token_counts_of_the_reference(
    golden: Golden, golden_ids: tuple[NDArray[np.int32], ...]
) -> None:
    assert tuple(len(ids) for ids in golden_ids) == golden.token_counts


def test_vectors_are_those_of_the_float32_model(
    embedder: CpuEmbedder, golden: Golden, golden_ids: tuple[NDArray[np.int32], ...]
) -> None:
    fidelity = cosines(embedder.run(golden_ids), golden.vectors)

    assert fidelity.min() >= 0.997
    assert fidelity.mean() >= 0.999


def test_vectors_have_length_one(embedder: CpuEmbedder, golden_ids: tuple[NDArray[np.int32], ...]) -> None:
    assert np.linalg.norm(embedder.run(golden_ids), axis=1) == pytest.approx(1, abs=1e-6)


def test_a_text_has_the_same_vector_alone_and_in_a_ragged_batch(
    embedder: CpuEmbedder, golden_ids: tuple[NDArray[np.int32], ...]
) -> None:
    alone = np.concatenate([embedder.run([ids]) for ids in golden_ids])

    assert np.abs(embedder.run(golden_ids) - alone).max() <= 1e-4


def test_the_order_of_the_batch_does_not_matter(
    embedder: CpuEmbedder, golden_ids: tuple[NDArray[np.int32], ...]
) -> None:
    assert np.abs(embedder.run(golden_ids[::-1])[::-1] - embedder.run(golden_ids)).max() <= 1e-4


def test_the_graph_is_built_once(copied_folder: Path) -> None:
    built = derived_graph(copied_folder)
    (copied_folder / "model.onnx").touch()
    modified = built.stat().st_mtime_ns

    assert derived_graph(copied_folder) == built
    assert built.stat().st_mtime_ns == modified
    assert list(built.parent.iterdir()) == [built]


def test_a_damaged_graph_is_built_again(copied_folder: Path) -> None:
    built = derived_graph(copied_folder)
    content = built.read_bytes()
    built.write_bytes(content[:-1000])

    assert derived_graph(copied_folder).read_bytes() == content
    assert list(built.parent.iterdir()) == [built]


def test_a_changed_model_gets_a_graph_of_its_own(bge_folder: Path, copied_folder: Path) -> None:
    built = derived_graph(copied_folder)
    write_float32_onnx(bge_folder / "model.onnx", copied_folder / "model.onnx")

    rebuilt = derived_graph(copied_folder)

    assert list(rebuilt.parent.iterdir()) == [rebuilt]
    assert rebuilt != built


def test_a_float32_export_has_the_same_weights_as_the_int8_file_made_from_it(
    bge_folder: Path, tmp_path: Path
) -> None:
    write_float32_onnx(bge_folder / "model.onnx", tmp_path / "model.onnx")

    assert arrays(load_weights(tmp_path)) == arrays(load_weights(bge_folder))


@pytest.mark.parametrize("content", [b"", b"not a model", onnx.ModelProto().SerializeToString()])
def test_a_file_that_is_no_bert_encoder_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(ModelSupplyError, match=r"model\.onnx"):
        load_weights(tmp_path)


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelSupplyError, match=r"model\.onnx"):
        derived_graph(tmp_path)


def arrays(weights: BertWeights) -> list[tuple[tuple[int, ...], bytes]]:
    """Every array, comparable."""
    norms = [weights.embeddings_norm] + [
        n for layer in weights.layers for n in (layer.attention_norm, layer.output_norm)
    ]
    linears = [
        linear
        for layer in weights.layers
        for linear in (
            layer.query,
            layer.key,
            layer.value,
            layer.attention_output,
            layer.intermediate,
            layer.output,
        )
    ]
    found = [weights.word_embeddings, weights.position_embeddings, weights.type_embeddings]
    found += [array for norm in norms for array in (norm.scale, norm.bias)]
    found += [array for linear in linears for array in (linear.weight, linear.bias)]
    return [(array.shape, array.tobytes()) for array in found]
