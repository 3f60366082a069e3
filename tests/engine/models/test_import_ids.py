"""Who asks for a model that npu-gateway knows gets that model."""

from pathlib import Path

import pytest

from engine.errors import ModelSupplyError
from engine.models.pull import import_gguf
from engine.models.registry import MODELS, find
from engine.models.store import ModelStore
from tests.engine.models.gguf_files import TinyGguf


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.mark.parametrize("model_id", [spec.id for spec in MODELS])
def test_another_model_cannot_be_imported_under_a_known_id(store: ModelStore, model_id: str) -> None:
    file = TinyGguf(layers=1).write(store.folder.parent / "tiny.gguf")

    with pytest.raises(ModelSupplyError) as refused:
        import_gguf(store, file, model_id=model_id)

    assert str(refused.value) == (
        f"{model_id} is a model that npu-gateway knows, and tiny.gguf is not it. "
        f"Choose another id, as in --id {model_id}-gguf."
    )
    assert store.list() == ()


def test_a_file_that_calls_itself_like_a_known_model_is_not_taken_for_it(store: ModelStore) -> None:
    named = TinyGguf(layers=1, metadata={"general.name": "Phi 3 mini 4k instruct"})

    with pytest.raises(ModelSupplyError, match=r"phi-3-mini-4k-instruct is a model that npu-gateway knows"):
        import_gguf(store, named.write(store.folder.parent / "tiny.gguf"), model_id=None)


def test_the_file_of_a_known_model_can_be_imported_under_its_id(
    store: ModelStore, smollm2_gguf: Path, smollm2_folder: Path
) -> None:
    model = import_gguf(store, smollm2_gguf, model_id="smollm2-135m-instruct")

    pulled = ModelStore(smollm2_folder.parent).require("smollm2-135m-instruct")
    assert (model.id, model.revision) == (find("smollm2-135m-instruct").id, pulled.revision)
