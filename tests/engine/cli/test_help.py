"""--help and completion answer at once: they load every command, and nothing that a command needs to run."""

import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.engine.cli.commands import environment, npu_gateway

NAME_WHAT_IS_LOADED = """
import atexit, sys
before = set(sys.modules)
atexit.register(lambda: print(*sorted(set(sys.modules) - before), file=sys.stderr))
"""

OUR_OWN = {"engine", "mcp_server", "openai_shim"}


def packages_loaded(run: subprocess.CompletedProcess[str]) -> set[str]:
    assert run.returncode == 0, run.stderr
    loaded = {module.partition(".")[0] for module in run.stderr.split()}
    return loaded & set(packages_distributions()) - OUR_OWN - {"colorama"}  # which click loads on Windows


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"]], ids=" ".join)
def test_help_loads_no_package_but_the_command_line_s(tmp_path: Path, arguments: list[str]) -> None:
    run = npu_gateway(*arguments, env=environment(tmp_path), prelude=NAME_WHAT_IS_LOADED)

    assert packages_loaded(run) == {"click"}


def test_completion_loads_no_package_but_the_command_line_s(tmp_path: Path) -> None:
    shell = {"_NPU_GATEWAY_COMPLETE": "bash_complete", "COMP_WORDS": "npu-gateway ", "COMP_CWORD": "1"}
    name = "sys.argv[0] = 'npu-gateway'\n"  # as the shell calls it

    run = npu_gateway(env=environment(tmp_path, **shell), prelude=NAME_WHAT_IS_LOADED + name)

    assert "plain,serve" in run.stdout.splitlines()
    assert packages_loaded(run) == {"click"}


def test_on_an_intel_mac_one_sentence_says_why_not(tmp_path: Path) -> None:
    intel_mac = "import platform, sys\nsys.platform = 'darwin'\nplatform.machine = lambda: 'x86_64'\n"
    imported_here = "import click, importlib.metadata, subprocess\n"  # by what this system is

    run = npu_gateway("--help", env=environment(tmp_path), prelude=imported_here + intel_mac)

    assert (run.returncode, run.stdout, run.stderr) == (
        1,
        "",
        "npu-gateway: On a Mac this needs Apple silicon and a Python built for it; "
        "onnxruntime has no build for Intel.\n",
    )
