"""Real English and code to embed, found on every machine: the docstrings of Python's standard library.

They depend on the version of Python only, so two runs on one machine see the same texts.
"""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def docstrings() -> Iterator[str]:
    """Module by module, in order of name; reading all takes seconds."""
    library = Path(sysconfig.get_path("stdlib"))
    for file in sorted(library.rglob("*.py")):
        if {"site-packages", "dist-packages", "test", "tests"}.isdisjoint(file.parts):
            yield from _docstrings_of(file)


def _docstrings_of(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # lib2to3 ships files of Python 2
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
