"""A small model for the tests of doctor."""

from pathlib import Path

import pytest

from engine.models.store import Manifest, ModelStore
from tests.engine.cli.commands import install_tiny


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """Holds the model "tiny"."""
    store = ModelStore(tmp_path / "models")
    install_tiny(store, Manifest("tiny", "chat", "abc", 512, None, "gguf:tiny.gguf", ()))
    return store
