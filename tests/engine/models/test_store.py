"""What is installed, what is not, and how models appear and disappear."""

import threading
from pathlib import Path

import pytest

from engine.errors import ModelNotFound, ModelSupplyError
from engine.models.files import StoredFile
from engine.models.store import InstalledModel, Leftover, Manifest, ModelStore, revision_of


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_a_published_model_is_installed(store: ModelStore) -> None:
    _install(store, "tiny", {"model.onnx": b"12345", "onnx/extra.bin": b"67"})

    expected = InstalledModel(
        id="tiny",
        kind="embedding",
        folder=store.folder / "tiny",
        revision=store.require("tiny").revision,
        context_tokens=512,
        dimensions=384,
        source="wheel:tiny==1.0",
        size_bytes=7,
    )
    assert (store.get("tiny"), store.require("tiny"), store.list()) == (expected, expected, (expected,))


def test_an_empty_home_has_no_models(store: ModelStore) -> None:
    assert (store.list(), store.leftovers(), store.get("tiny")) == ((), (), None)


def test_the_revision_follows_the_content_of_the_files_not_their_order() -> None:
    a, b, other_b = StoredFile("a", "00", 1), StoredFile("b", "11", 1), StoredFile("b", "22", 1)

    assert revision_of((a, b)) == revision_of((b, a))
    assert revision_of((a, b)) != revision_of((a, other_b))


@pytest.mark.parametrize("damage", ["cut", "missing", "no manifest", "no JSON", "another id"])
def test_a_damaged_model_is_a_leftover_and_not_a_model(store: ModelStore, damage: str) -> None:
    folder = _install(store, "tiny", {"model.onnx": b"12345"}).folder
    match damage:
        case "cut":
            (folder / "model.onnx").write_bytes(b"123")
        case "missing":
            (folder / "model.onnx").unlink()
        case "no manifest":
            (folder / "manifest.json").unlink()
        case "no JSON":
            (folder / "manifest.json").write_text("{")
        case "another id":
            folder = folder.rename(store.folder / "renamed")

    assert (store.get(folder.name), store.list()) == (None, ())
    assert [(left.id, left.state) for left in store.leftovers()] == [(folder.name, "broken")]


def test_a_damaged_model_is_replaced_by_the_next_one_published(store: ModelStore) -> None:
    folder = _install(store, "tiny", {"model.onnx": b"12345"}).folder
    (folder / "manifest.json").unlink()
    (folder / "stray").touch()

    model = _install(store, "tiny", {"model.onnx": b"12345"})

    assert store.list() == (model,)
    assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "model.onnx"]


def test_an_unfinished_pull_is_a_leftover(store: ModelStore) -> None:
    with store.staging("tiny") as staging:
        staging.folder.mkdir()
        (staging.folder / "model.onnx.part").write_bytes(b"123")

    assert (store.list(), store.leftovers()) == ((), (Leftover("tiny", "unfinished", 3),))


def test_a_known_model_that_is_not_installed_is_named_with_the_command_that_fetches_it(
    store: ModelStore,
) -> None:
    with pytest.raises(ModelNotFound) as error:
        store.require("bge-small-en-v1.5")

    assert str(error.value) == (
        "Model 'bge-small-en-v1.5' is not installed; run `npu-gateway pull bge-small-en-v1.5`."
    )


def test_an_unknown_model_is_told_with_all_that_there_are(store: ModelStore) -> None:
    _install(store, "tiny", {"model.onnx": b""})

    with pytest.raises(ModelNotFound) as error:
        store.require("gpt-4")

    assert str(error.value) == (
        "No model is called 'gpt-4'. Known models: tiny, bge-small-en-v1.5, smollm2-135m-instruct, "
        "phi-3-mini-4k-instruct."
    )


def test_removing_a_model_frees_all_its_files(store: ModelStore) -> None:
    model = _install(store, "tiny", {"model.onnx": b"12345"})
    manifest_bytes = (model.folder / "manifest.json").stat().st_size
    (model.folder / "derived").mkdir()
    (model.folder / "derived" / "graph.onnx").write_bytes(b"678")

    assert store.remove("tiny") == 5 + 3 + manifest_bytes
    assert (store.list(), store.leftovers(), model.folder.exists()) == ((), (), False)


def test_an_unfinished_pull_can_be_removed(store: ModelStore) -> None:
    with store.staging("tiny") as staging:
        staging.folder.mkdir()
        (staging.folder / "model.onnx.part").write_bytes(b"123")

    assert (store.remove("tiny"), store.leftovers()) == (3, ())


def test_a_model_that_is_being_prepared_is_not_removed(store: ModelStore) -> None:
    tiny = _install(store, "tiny", {"model.onnx": b"12345"})

    with store.staging("tiny"), pytest.raises(ModelSupplyError, match="Another process is preparing tiny"):
        ModelStore(store.folder).remove("tiny")

    assert store.list() == (tiny,)


@pytest.mark.parametrize("model_id", ["other", "..", "../tiny", ".staging", ""])
def test_only_models_can_be_removed(store: ModelStore, model_id: str) -> None:
    tiny = _install(store, "tiny", {"model.onnx": b"12345"})

    with pytest.raises(ModelNotFound, match=r"is not installed\. Installed models: tiny"):
        store.remove(model_id)

    assert store.list() == (tiny,)


@pytest.mark.parametrize("model_id", ["Tiny", "a b", "../tiny", "tiny/x", ".tiny", "tiny.", ""])
def test_an_id_that_cannot_be_a_folder_everywhere_is_refused(store: ModelStore, model_id: str) -> None:
    with pytest.raises(ModelSupplyError, match="cannot be a model's id"), store.staging(model_id):
        pytest.fail("it was accepted")


def test_who_prepares_a_model_second_waits_and_finds_it_done(store: ModelStore) -> None:
    said: list[str] = []
    waiting, found = threading.Event(), threading.Event()

    def second() -> None:
        def progress(doing: str, done: int, total: int | None) -> None:
            said.append(doing)
            waiting.set()

        with ModelStore(store.folder).staging("tiny", progress):
            if store.get("tiny"):
                found.set()

    thread = threading.Thread(target=second)
    with store.staging("tiny") as staging:
        thread.start()
        assert waiting.wait(timeout=10)
        content = staging.folder / "content"
        content.mkdir(parents=True)
        staging.publish(content, _manifest("tiny", ()))
    thread.join(timeout=10)

    assert (said, found.is_set()) == (["waiting for another process that works on tiny"], True)


def _install(store: ModelStore, model_id: str, files: dict[str, bytes]) -> InstalledModel:
    with store.staging(model_id) as staging:
        content = staging.folder / "content"
        for name, data in files.items():
            (content / name).parent.mkdir(parents=True, exist_ok=True)
            (content / name).write_bytes(data)
        stored = tuple(StoredFile.of(content / name, content) for name in files)
        staging.publish(content, _manifest(model_id, stored))
    return store.require(model_id)


def _manifest(model_id: str, files: tuple[StoredFile, ...]) -> Manifest:
    return Manifest(
        id=model_id,
        kind="embedding",
        revision=revision_of(files),
        context_tokens=512,
        dimensions=384,
        source="wheel:tiny==1.0",
        files=files,
    )
