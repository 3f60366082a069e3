"""Windows' rules on any system: `pytest -p tests.windows_rules` runs the suite under all of them at once.

Each module of `rules` is one rule. They hold in this process and, by a `sitecustomize` on PYTHONPATH, in
every Python that it starts. Tests that say they are not for Windows are skipped.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.windows_rules.rules import WORLD, enforce, launcher

_SITE = Path(__file__).with_name("site")
_ROOT = Path(__file__).parents[2]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before the product is imported: it reads `sys.executable` and the like once."""
    world = tempfile.mkdtemp(prefix="Åø ł ")
    os.environ[WORLD] = os.environ["TMPDIR"] = world
    tempfile.tempdir = None
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (_SITE, _ROOT)))
    launcher.write(Path(world, "python"))
    enforce()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reasons = [mark.kwargs.get("reason", "") for mark in item.iter_markers("skipif")]
        if any("Windows" in reason for reason in reasons):
            item.add_marker(pytest.mark.skip(reason="under Windows' rules"))


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ[WORLD], ignore_errors=True)
