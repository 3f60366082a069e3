"""Sanic serves a duplicate of the socket that it is given, so the original goes on listening."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from types import ModuleType

_RUNNERS = "sanic.server.runners"


def enforce() -> None:
    socket.socket.share = lambda self, pid: str(os.dup(self.fileno())).encode()  # type: ignore[attr-defined]
    socket.fromshare = lambda info: socket.socket(fileno=int(info))  # type: ignore[attr-defined]
    if _RUNNERS in sys.modules:
        sys.modules[_RUNNERS].OS_IS_WINDOWS = True  # type: ignore[attr-defined]
    else:
        sys.meta_path.insert(0, _OnImport())


class _OnImport(importlib.abc.MetaPathFinder):
    """Most processes never import Sanic, and shall not because of the rule."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _RUNNERS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.loader
        execute = spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            module.OS_IS_WINDOWS = True  # type: ignore[attr-defined]

        spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec
