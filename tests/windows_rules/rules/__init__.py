"""One module for each rule, each with `enforce`."""

import importlib

WORLD = "WINDOWS_RULES_WORLD"
"""Environment variable: the folder of everything that tests write; the rules for files hold inside it."""

RULES = (
    "accepts",
    "clocks",
    "files",
    "launcher",
    "modes",
    "ports",
    "posix",
    "refusals",
    "sanic_sockets",
    "text",
)


def enforce() -> None:
    for rule in RULES:
        importlib.import_module(f"{__name__}.{rule}").enforce()
