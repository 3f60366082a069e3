"""The graph that the NPU's compiler is given, run here by the CPU."""

import base64
import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tokenizers import Tokenizer

from engine.embedding.npu import parity
from engine.embedding.npu.buckets import Bucket, NpuFault, pad, plan
from engine.embedding.npu.graph import RECIPE, build_graph
from engine.models.encoders.bert import BertWeights, load_weights
from tests.golden import GOLDEN


@pytest.fixture(scope="module")
def weights(bge_folder: Path) -> BertWeights:
    return load_weights(bge_folder)


@pytest.mark.parametrize(("bucket", "tokens"), [(Bucket(6, 32), range(33)), (Bucket(1, 512), range(33, 513))])
def test_every_row_of_the_graph_is_the_golden_vector_of_its_text(
    weights: BertWeights, bge_folder: Path, bucket: Bucket, tokens: range
) -> None:
    tokenizer = Tokenizer.from_file(str(bge_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    items = [item for item in GOLDEN["items"] if item["tokens"] in tokens]
    graph = build_graph(weights, bucket).SerializeToString()

    vectors = run_on_cpu(graph, [tokenizer.encode(item["text"]).ids for item in items], bucket)

    golden = [np.frombuffer(base64.b64decode(item["vector_f32_base64"]), np.float32) for item in items]
    assert np.sum(vectors * golden, axis=1) == pytest.approx(1, abs=1e-5)


def run_on_cpu(graph: bytes, token_ids: list[list[int]], bucket: Bucket) -> NDArray[np.float32]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    vectors = []
    for start in range(0, len(token_ids), bucket.batch):
        batch = token_ids[start : start + bucket.batch]
        input_ids, attention_bias = pad(batch, bucket)
        (output,) = session.run(None, {"input_ids": input_ids, "attention_bias": attention_bias})
        vectors.append(output[: len(batch)])
    return np.concatenate(vectors)


def test_a_graph_has_fixed_shapes_and_standard_operators_of_opset_17(weights: BertWeights) -> None:
    graph = onnx.shape_inference.infer_shapes(build_graph(weights, Bucket(2, 64)), strict_mode=True)

    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 17)]
    shapes = {value.name: shape(value) for value in (*graph.graph.input, *graph.graph.output)}
    assert shapes == {"input_ids": [2, 64], "attention_bias": [2, 1, 1, 64], "embeddings": [2, 384]}
    assert all(min(shape(value)) > 0 for value in graph.graph.value_info)


def shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def test_the_recipe_names_one_graph_and_one_gate(
    weights: BertWeights, bge_folder: Path, tmp_path: Path
) -> None:
    """If this fails, raise RECIPE and write the new digests here: what users have on disk is outdated."""
    bucket = Bucket(2, 32)
    graph = build_graph(weights, bucket)
    onnx.save(graph, tmp_path / "graph.onnx")
    probes = parity.make_probes(tmp_path / "graph.onnx", bucket, bge_folder / "tokenizer.json")

    made = {
        "graph": digest(graph.SerializeToString(deterministic=True)),
        "probes": digest(np.concatenate(probes.token_ids).astype("<i4").tobytes()),
        "lowest cosines": (parity.MIN_COSINE, parity.MIN_COSINE_REORDERED),
    }

    assert (RECIPE, made) == (
        1,
        {
            "graph": "a7d5e7b56bd28984",
            "probes": "25c4e4388d9fba85",
            "lowest cosines": (0.999, 0.9999),
        },
    )


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def test_position_embeddings_are_repeated_for_each_row(weights: BertWeights) -> None:
    """HTP does not broadcast an addend that it fuses with LayerNormalization."""
    graph = build_graph(weights, Bucket(3, 32)).graph
    (add,) = (node for node in graph.node if node.op_type == "Add" and node.input[0].startswith("Gather"))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    row = weights.position_embeddings[:32] + weights.type_embeddings[0]
    np.testing.assert_array_equal(constants[add.input[1]], np.stack([row] * 3))


def test_all_buckets_have_the_same_weights(weights: BertWeights) -> None:
    def matrices(bucket: Bucket) -> list[bytes]:
        graph = build_graph(weights, bucket).graph
        return [tensor.raw_data for tensor in graph.initializer if len(tensor.dims) == 2]

    assert matrices(Bucket(1, 32)) == matrices(Bucket(4, 128))


@pytest.mark.parametrize(
    ("lengths", "buckets", "expected"),
    [
        ([32, 33, 3], [(1, 32), (1, 64)], [((1, 32), [0]), ((1, 32), [2]), ((1, 64), [1])]),
        ([9] * 6, [(1, 32), (4, 32)], [((4, 32), [0, 1, 2, 3]), ((1, 32), [4]), ((1, 32), [5])]),
        ([9] * 6, [(4, 32)], [((4, 32), [0, 1, 2, 3]), ((4, 32), [4, 5])]),
        ([9], [(1, 128), (4, 64)], [((4, 64), [0])]),
        ([], [(1, 32)], []),
    ],
    ids=[
        "shortest that fits",
        "full batches first",
        "a batch may stay part empty",
        "length before batch",
        "none",
    ],
)
def test_texts_are_laid_out_in_buckets(
    lengths: list[int], buckets: list[tuple[int, int]], expected: list[tuple[tuple[int, int], list[int]]]
) -> None:
    runs = plan(lengths, [Bucket(*bucket) for bucket in buckets])

    assert runs == [(Bucket(*bucket), rows) for bucket, rows in expected]


def test_a_text_that_no_bucket_holds_is_refused() -> None:
    with pytest.raises(NpuFault, match="a text of 65 tokens"):
        plan([3, 65], [Bucket(1, 32), Bucket(1, 64)])
