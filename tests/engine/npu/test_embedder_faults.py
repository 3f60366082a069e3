"""What the embedder does when a compilation, a stored graph or a session is not as it should be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.embedding.npu.buckets import NpuFault
from engine.embedding.npu.contexts import ContextCache
from engine.embedding.npu.device import Npu
from engine.embedding.npu.embedder import NpuEmbedder
from tests.engine.npu.sessions import (
    BATCH,
    NO_COMPILER,
    SINGLE,
    Aging,
    Broken,
    Sessions,
    cut_sidecar,
    delete,
    flip_a_bit,
    one_layer,
    refuse,
    rename_device,
    sound,
    truncate,
)


def test_the_second_start_compiles_nothing(compiled: Path, bge_folder: Path, npu: Npu) -> None:
    embedder = NpuEmbedder(npu, ContextCache(compiled, bge_folder, npu, compiler=NO_COMPILER))

    embedder.prepare(BATCH)

    assert (embedder.available_buckets(), dict(embedder.disabled())) == ((BATCH,), {})


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
