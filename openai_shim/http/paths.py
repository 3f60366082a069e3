"""What is wrong, without where on this machine: a path tells strangers the user's name."""

import re
from dataclasses import replace

from engine.types import Health, ModelStatus

_FOLDERS = re.compile(
    r"""
    \b[A-Za-z]:[\\/](?:[^\\/:*?"<>|\r\n]+[\\/])*   # C:\Users\Ann Smith\...
    | \\\\(?:[^\\/:*?"<>|\r\n]+\\)+                # \\server\share\...
    | (?<![\w.:/<~])/(?:[^/:'"\r\n]+/)+            # /home/ann/; not the slashes of a URL, </s> or and/or
    """,
    re.VERBOSE,
)


def without_paths(text: str) -> str:
    """Of every absolute path only the last name stays. Folders may have spaces: rather too much goes."""
    return _FOLDERS.sub("", text)


def public(health: Health) -> Health:
    """What clients may read of it."""
    return replace(
        health,
        npu=replace(health.npu, reason=_cleaned(health.npu.reason)),
        models=tuple(_public(model) for model in health.models),
    )


def _public(model: ModelStatus) -> ModelStatus:
    return replace(model, detail=_cleaned(model.detail))


def _cleaned(text: str | None) -> str | None:
    return without_paths(text) if text else text
