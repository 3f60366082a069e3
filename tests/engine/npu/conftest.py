"""One compiled layer on the emulator, shared by the tests of this folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.embedding.npu import EMULATION_VARIABLE
from engine.embedding.npu.contexts import ContextCache
from engine.embedding.npu.device import Npu, find_npu
from engine.embedding.npu.embedder import NpuEmbedder
from tests.engine.npu.sessions import BATCH, NO_COMPILER, SINGLE, golden_token_ids, one_layer


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
