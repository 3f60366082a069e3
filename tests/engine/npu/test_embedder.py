"""The embedding model on the real QNN provider: on an NPU if this machine has one, else on its emulator.

Most tests use the model's first layer alone: an emulated run of all twelve takes over a second.
"""

import base64
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from engine.embedding.npu.buckets import Bucket, NpuFault, pad
from engine.embedding.npu.compiler import CONTEXT
from engine.embedding.npu.contexts import COMPILER, ContextCache
from engine.embedding.npu.device import Npu
from engine.embedding.npu.embedder import NpuEmbedder
from tests.engine.npu import one_layer_compiler
from tests.engine.npu.sessions import BATCH, SINGLE, command, golden_token_ids, one_layer
from tests.golden import GOLDEN


@pytest.mark.slow  # of short texts, test_emulated.py asks for fewer
def test_the_npu_gives_all_golden_vectors(tmp_path: Path, bge_folder: Path, npu: Npu) -> None:
    embedder = NpuEmbedder(npu, ContextCache(tmp_path, bge_folder, npu))
    for bucket in (SINGLE, Bucket(1, 256), Bucket(1, 512)):
        embedder.prepare(bucket)

    vectors = embedder.run(golden_token_ids(bge_folder))

    golden = [np.frombuffer(base64.b64decode(i["vector_f32_base64"]), np.float32) for i in GOLDEN["items"]]
    assert np.sum(vectors * golden, axis=1).min() >= 0.999
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_every_row_of_a_batch_is_right(
    one_layer_embedder: NpuEmbedder, bge_folder: Path, token_ids: list[list[int]]
) -> None:
    """Two full batches of four and two texts alone, against one text at a time in float32 on the CPU."""
    graph = one_layer_compiler.one_layer_graph(bge_folder, SINGLE).SerializeToString()
    cpu = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    references = []
    for ids in token_ids:
        input_ids, attention_bias = pad([ids], SINGLE)
        references.append(cpu.run(None, {"input_ids": input_ids, "attention_bias": attention_bias})[0][0])

    vectors = one_layer_embedder.run(token_ids)

    assert np.all(np.sum(vectors * np.stack(references), axis=1) >= 0.999)


def test_callers_at_the_same_time_get_their_own_vectors(
    one_layer_embedder: NpuEmbedder, token_ids: list[list[int]]
) -> None:
    alone = [one_layer_embedder.run([ids]) for ids in token_ids]

    with ThreadPoolExecutor(4) as callers:
        together = list(callers.map(lambda ids: one_layer_embedder.run([ids]), token_ids, timeout=60))

    np.testing.assert_array_equal(together, alone)


def test_a_graph_with_wrong_rows_is_caught_and_its_bucket_disabled(
    tmp_path: Path, bge_folder: Path, npu: Npu
) -> None:
    """HTP does not broadcast position embeddings of shape [1, sequence, hidden] over the rows of a batch."""
    embedder = NpuEmbedder(npu, ContextCache(tmp_path, bge_folder, npu, compiler=one_layer("untiled")))

    embedder.prepare(BATCH)

    assert embedder.available_buckets() == ()
    assert "The NPU's 4x32 graph is wrong: cosine 0." in embedder.disabled()[BATCH]
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_an_open_dimension_is_refused_instead_of_running_on_the_cpu(
    tmp_path: Path, bge_folder: Path, npu: Npu
) -> None:
    embedder = NpuEmbedder(npu, ContextCache(tmp_path, bge_folder, npu, compiler=one_layer("dynamic")))

    embedder.prepare(SINGLE)

    assert embedder.available_buckets() == ()
    assert "The graph cannot be compiled for the NPU" in embedder.disabled()[SINGLE]


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        (command("raise SystemExit('out of memory')"), "failed: out of memory"),
        (command("import os; os.abort()"), "crashed (status "),
        (command("import threading; threading.Event().wait()"), "took over 3 s."),
        (command("pass"), "cannot be stored"),
        (("/no/such/command",), "cannot be stored"),
    ],
    ids=["error", "crash", "hang", "nothing made", "not found"],
)
def test_a_failing_compilation_disables_the_bucket_and_leaves_nothing_behind(
    tmp_path: Path, bge_folder: Path, npu: Npu, compiler: Sequence[str], reason: str
) -> None:
    cache = ContextCache(tmp_path, bge_folder, npu, compiler=compiler, timeout_seconds=3)
    embedder = NpuEmbedder(npu, cache)

    embedder.prepare(SINGLE)

    assert embedder.available_buckets() == ()
    assert reason in embedder.disabled()[SINGLE]
    assert list(tmp_path.iterdir()) == []


def test_the_compiler_ends_when_its_parent_does(tmp_path: Path, bge_folder: Path) -> None:
    """Its standard input is a pipe that the parent holds open: here it is closed from the start."""
    arguments = [str(bge_folder), str(tmp_path), "1", "32"]

    ended = subprocess.run([*COMPILER, *arguments], stdin=subprocess.DEVNULL, timeout=60, check=False)

    assert ended.returncode == 1
    assert not (tmp_path / CONTEXT).exists()


def test_a_text_too_long_for_the_available_buckets_is_a_fault(one_layer_embedder: NpuEmbedder) -> None:
    with pytest.raises(NpuFault, match="33 tokens"):
        one_layer_embedder.run([[101] * 33])
