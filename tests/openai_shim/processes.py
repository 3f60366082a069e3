"""A gateway as a process of its own, with the real models, for tests that end or hurt it."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.daemon import Endpoint
from engine.daemon.endpoint import read
from engine.settings import Home

CHATTER = "smollm2-135m-instruct"
ENDLESS = {
    "model": CHATTER,
    "messages": [{"role": "user", "content": "Count to ten thousand."}],
    "max_tokens": 8000,
    "logit_bias": {"0": -100, "2": -100},  # the tokens that end an answer
}
"""Runs until somebody ends it."""


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    home: Home

    @property
    def endpoint(self) -> Endpoint:
        endpoint = read(self.home)
        assert endpoint is not None
        return endpoint

    @property
    def url(self) -> str:
        return self.endpoint.url

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def serving(models_home: Home, root: Path) -> Iterator[Served]:
    """Two models are up. Linked, not copied: a home of its own costs no disk."""
    home = Home(root)
    shutil.copytree(models_home.models, home.models, copy_function=os.link)
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "serve", "--port", "0"],
        env=os.environ | {"NPU_GATEWAY_HOME": str(home.root), "COLUMNS": "200"},
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield Served(process, home)
    finally:
        process.kill()
        process.communicate(timeout=30)


def wait_until_up(served: Served) -> str:
    """What serve prints until its last model is ready."""
    printed = ""
    assert served.process.stderr is not None
    too_late = threading.Timer(120, served.process.kill)
    too_late.start()
    try:
        for line in served.process.stderr:
            printed += line
            if line.startswith("smollm2"):
                return printed
    finally:
        too_late.cancel()
    raise AssertionError(printed)
