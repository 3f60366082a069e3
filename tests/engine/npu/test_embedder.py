"""The embedding model on the real QNN provider: on an NPU if this machine has one, else on its emulator.

Most tests use the model's first layer alone: an emulated run of all twelve takes over a second.
"""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine.embedding.npu import EMULATION_VARIABLE
from engine.embedding.npu.buckets import Bucket, NpuFault, TokenIds, pad
from engine.embedding.npu.compiler import CONTEXT
from engine.embedding.npu.contexts import COMPILER, ContextCache
from engine.embedding.npu.device import Npu, find_npu
from engine.embedding.npu.embedder import NpuEmbedder
from engine.embedding.npu.session import QnnSession
from tests.engine.npu import one_layer_compiler
from tests.golden import GOLDEN

SINGLE = Bucket(1, 32)
BATCH = Bucket(4, 32)


def one_layer(variant: str) -> Sequence[str]:
    return (sys.executable, one_layer_compiler.__file__, variant)


def command(code: str) -> Sequence[str]:
    return (sys.executable, "-c", code)


NO_COMPILER = command("raise SystemExit('nothing was to be compiled')")


@pytest.fixture(scope="module")
def npu() -> Iterator[Npu]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(EMULATION_VARIABLE, "1")  # also seen by the compiler's process
        search = find_npu()
        if search.npu is None:
            pytest.skip(str(search.reason))
        yield search.npu


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, bge_folder: Path, npu: Npu) -> Path:
    """A folder with the contexts of both one-layer buckets. Not to be changed."""
    folder = tmp_path_factory.mktemp("contexts")
    cache = ContextCache(folder, bge_folder, npu, compiler=one_layer("sound"))
    for bucket in (SINGLE, BATCH):
        cache.compile(bucket)
    return folder


@pytest.fixture
def stored(compiled: Path, tmp_path: Path) -> Path:
    """A copy of `compiled` that may be changed."""
    return Path(shutil.copytree(compiled, tmp_path / "contexts"))


@pytest.fixture(scope="module")
def one_layer_embedder(compiled: Path, bge_folder: Path, npu: Npu) -> Iterator[NpuEmbedder]:
    embedder = NpuEmbedder(npu, ContextCache(compiled, bge_folder, npu, compiler=NO_COMPILER))
    embedder.prepare(SINGLE)
    embedder.prepare(BATCH)
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def token_ids(bge_folder: Path) -> list[list[int]]:
    """The golden texts of at most 32 tokens: ten, all but three of different lengths."""
    return [ids for ids in golden_token_ids(bge_folder) if len(ids) <= SINGLE.sequence]


def golden_token_ids(bge_folder: Path) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(bge_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    return [tokenizer.encode(item["text"]).ids for item in GOLDEN["items"]]


# What is computed


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


# What is refused


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


# What is stored


def test_the_second_start_compiles_nothing(compiled: Path, bge_folder: Path, npu: Npu) -> None:
    embedder = NpuEmbedder(npu, ContextCache(compiled, bge_folder, npu, compiler=NO_COMPILER))

    embedder.prepare(BATCH)

    assert (embedder.available_buckets(), dict(embedder.disabled())) == ((BATCH,), {})


def delete(binary: Path) -> None:
    binary.unlink()


def truncate(binary: Path) -> None:
    binary.write_bytes(binary.read_bytes()[:-4096])


def flip_a_bit(binary: Path) -> None:
    content = bytearray(binary.read_bytes())
    content[len(content) // 2] ^= 1
    binary.write_bytes(content)


def rename_device(binary: Path) -> None:
    sidecar = binary.with_name("context.json")
    content = json.loads(sidecar.read_text("utf-8"))
    content["key"]["device"] = "another NPU"
    sidecar.write_text(json.dumps(content), "utf-8")


def cut_sidecar(binary: Path) -> None:
    binary.with_name("context.json").write_text('{"key": {', "utf-8")


@pytest.mark.parametrize("damage", [delete, truncate, flip_a_bit, rename_device, cut_sidecar])
def test_a_damaged_or_foreign_context_counts_as_absent(
    stored: Path, bge_folder: Path, npu: Npu, damage: Callable[[Path], None]
) -> None:
    cache = ContextCache(stored, bge_folder, npu)
    found = cache.find(SINGLE)
    assert found is not None
    (binary,) = found.folder.glob("*.bin")

    damage(binary)

    assert cache.find(SINGLE) is None


def test_a_truncated_context_is_made_anew(
    stored: Path, bge_folder: Path, npu: Npu, token_ids: list[list[int]], one_layer_embedder: NpuEmbedder
) -> None:
    (binary,) = stored.glob("*-1x32-*/*.bin")
    truncate(binary)
    embedder = NpuEmbedder(npu, ContextCache(stored, bge_folder, npu, compiler=one_layer("sound")))

    embedder.prepare(SINGLE)

    assert embedder.available_buckets() == (SINGLE,)
    np.testing.assert_array_equal(embedder.run(token_ids[:1]), one_layer_embedder.run(token_ids[:1]))


def test_what_other_versions_and_killed_compilations_left_is_removed(
    stored: Path, bge_folder: Path, npu: Npu
) -> None:
    before = {folder.name for folder in stored.iterdir()}
    for name in (f"{bge_folder.name}-1x32-0123456789abcdef", f".{bge_folder.name}-1x32-killed"):
        (stored / name / "context").mkdir(parents=True)

    ContextCache(stored, bge_folder, npu, compiler=one_layer("sound")).compile(SINGLE)

    assert {folder.name for folder in stored.iterdir()} == before


# What can go wrong later


def sound(session: QnnSession) -> QnnSession:
    return session


@dataclass
class Sessions:
    """Opens real sessions, and notes which; `fault` is called with each before it is used."""

    fault: Callable[[QnnSession], QnnSession] = sound
    opened: list[Bucket] = field(default_factory=list)

    def __call__(self, context: Path, bucket: Bucket, npu: Npu) -> QnnSession:
        self.opened.append(bucket)
        return self.fault(QnnSession(context, bucket, npu))


def refuse(session: QnnSession) -> QnnSession:
    raise NpuFault("the driver is being updated")


class Broken(QnnSession):
    """Passes the parity gate, whose texts are longer, and gives no numbers for a text of three tokens."""

    def __init__(self, session: QnnSession) -> None:
        self._sound = session

    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        vectors = self._sound.run(token_ids)
        return vectors if len(token_ids[0]) > 3 else np.full_like(vectors, np.nan)


def test_a_context_that_cannot_be_loaded_is_made_anew_once_and_then_disabled(
    stored: Path, bge_folder: Path, npu: Npu
) -> None:
    sessions = Sessions(refuse)
    cache = ContextCache(stored, bge_folder, npu, compiler=one_layer("sound"))
    embedder = NpuEmbedder(npu, cache, open_session=sessions)

    embedder.prepare(SINGLE)

    assert dict(embedder.disabled()) == {SINGLE: "the driver is being updated"}
    assert sessions.opened == [SINGLE, SINGLE]


def test_a_disabled_bucket_can_be_prepared_later(compiled: Path, bge_folder: Path, npu: Npu) -> None:
    sessions = Sessions(refuse)
    cache = ContextCache(compiled, bge_folder, npu, compiler=NO_COMPILER)
    embedder = NpuEmbedder(npu, cache, open_session=sessions)
    embedder.prepare(SINGLE)

    sessions.fault = sound
    embedder.prepare(SINGLE)

    assert (embedder.available_buckets(), dict(embedder.disabled())) == ((SINGLE,), {})


def test_wrong_numbers_from_the_device_are_a_fault_that_a_rebuild_can_end(
    compiled: Path, bge_folder: Path, npu: Npu
) -> None:
    sessions = Sessions(Broken)
    cache = ContextCache(compiled, bge_folder, npu, compiler=NO_COMPILER)
    embedder = NpuEmbedder(npu, cache, open_session=sessions)
    embedder.prepare(SINGLE)

    with pytest.raises(NpuFault, match="not of length 1") as caught:
        embedder.run([[101, 2028, 102]])
    sessions.fault = sound
    embedder.rebuild(SINGLE)

    assert caught.value.bucket == SINGLE
    assert embedder.run([[101, 2028, 102]]).shape == (1, 384)


class Aging(QnnSession):
    """Right for the two runs of the gate and two more; then it answers every text with the same vector."""

    def __init__(self, session: QnnSession) -> None:
        self._sound = session
        self._runs = 0

    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        self._runs += 1
        vectors = self._sound.run(token_ids)
        return vectors if self._runs <= 4 else np.eye(*vectors.shape, dtype=np.float32)


def test_a_device_that_begins_to_compute_wrongly_is_found_out(
    compiled: Path, bge_folder: Path, npu: Npu
) -> None:
    sessions = Sessions(Aging)
    cache = ContextCache(compiled, bge_folder, npu, compiler=NO_COMPILER)
    embedder = NpuEmbedder(npu, cache, open_session=sessions, runs_between_checks=3)
    embedder.prepare(SINGLE)
    for _ in range(2):
        embedder.run([[101, 2028, 102]])

    with pytest.raises(NpuFault, match="cosine") as caught:
        embedder.run([[101, 2028, 102]])

    assert caught.value.bucket == SINGLE


def test_a_rebuild_that_fails_is_a_fault(compiled: Path, bge_folder: Path, npu: Npu) -> None:
    sessions = Sessions()
    cache = ContextCache(compiled, bge_folder, npu, compiler=NO_COMPILER)
    embedder = NpuEmbedder(npu, cache, open_session=sessions)
    embedder.prepare(SINGLE)

    sessions.fault = refuse

    with pytest.raises(NpuFault, match="the driver is being updated"):
        embedder.rebuild(SINGLE)


def test_the_bucket_used_longest_ago_is_unloaded_when_memory_is_short(
    compiled: Path, bge_folder: Path, npu: Npu
) -> None:
    cache = ContextCache(compiled, bge_folder, npu, compiler=NO_COMPILER)
    single = cache.find(SINGLE)
    assert single is not None
    sessions = Sessions()
    embedder = NpuEmbedder(npu, cache, memory_budget_bytes=single.size_bytes * 3 // 2, open_session=sessions)
    embedder.prepare(SINGLE)
    embedder.prepare(BATCH)

    embedder.run([[101, 2028, 102]])
    embedder.run([[101, 2028, 102]])

    assert embedder.available_buckets() == (SINGLE, BATCH)
    assert sessions.opened == [SINGLE, BATCH, SINGLE]
