"""benchmarks/README.md names the programs that are there, and each says how it is used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(file.stem for file in FOLDER.glob("[!_]*.py"))


def test_the_index_lists_every_program() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| `(\w+)` \|", index, flags=re.MULTILINE)) == PROGRAMS
    assert sorted(re.findall(r"\| `python -m benchmarks\.(\w+)", index)) == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_has_help(program: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{program}", "--help"]

    done = subprocess.run(
        command, cwd=FOLDER.parent, capture_output=True, encoding="utf-8", timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m benchmarks.{program} ")
