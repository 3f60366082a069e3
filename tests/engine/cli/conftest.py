"""A small model for the tests of doctor."""

from pathlib import Path

import pytest

from engine.models.files import StoredFile
from engine.models.store import Manifest, ModelStore


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """Holds the model "tiny"."""
    store = ModelStore(tmp_path / "models")
    with store.staging("tiny") as staging:
        content = staging.folder / "content"
        content.mkdir(parents=True)
        (content / "model.onnx").write_bytes(b"12345")
        files = (StoredFile.of(content / "model.onnx", content),)
        staging.publish(content, Manifest("tiny", "chat", "abc", 512, None, "gguf:tiny.gguf", files))
    return store
