"""The gateway's folder and what is in it: configuration and models."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath

from rich.filesize import decimal

from engine.doctor.finding import Finding
from engine.engine import Engine
from engine.errors import BadInput, ModelNotFound
from engine.models.registry import is_embedded, is_known
from engine.models.store import Leftover, ModelStore
from engine.settings import Home, Settings

ENOUGH_BYTES = 1_000_000_000
"""The embedded models take 0.2 GB, their downloads 0.2 GB for a while, compiled graphs for an NPU 0.4 GB."""


def check_place(root: PurePath) -> Finding:
    name = "home"
    if "appdata" in (part.lower() for part in root.parts):
        return Finding(
            name,
            "warn",
            f"{root} is inside AppData, where packaged apps such as Claude's get a copy of their own.",
            "Set NPU_GATEWAY_HOME to another folder, for all programs.",
        )
    return Finding(name, "ok", str(root))


def check_writable(root: Path) -> Finding:
    """Of a folder that does not exist yet, the nearest one above it is tried. Nothing is left behind."""
    name = "writable"
    folder = next(parent for parent in (root, *root.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding(name, "ok", f"{folder} can be written to.")
    except OSError as error:
        return Finding(
            name,
            "fail",
            f"{folder} cannot be written to: {error.strerror}.",
            "Make it writable for you, or put the home elsewhere with NPU_GATEWAY_HOME.",
        )


def check_disk(free_bytes: int) -> Finding:
    what = f"{decimal(free_bytes)} are free."
    if free_bytes < ENOUGH_BYTES:
        advice = f"Free some: the embedded models and compiled graphs need about {decimal(ENOUGH_BYTES)}."
        return Finding("disk", "warn", what, advice)
    return Finding("disk", "ok", what)


def check_config(file: Path, problem: BadInput | None) -> Finding:
    if problem:
        return Finding("configuration", "fail", str(problem), f"Edit {file}.")
    shown = f"{file} is valid." if file.exists() else f"Defaults; there is no {file}."
    return Finding("configuration", "ok", shown)


def check_model(store: ModelStore, model_id: str, *, verify: bool) -> Finding:
    """verify: hash its files."""
    model = store.require(model_id)
    altered = store.altered(model_id) if verify else ()
    if altered:
        return Finding(
            _model(model_id),
            "fail",
            f"These files are not what was installed: {', '.join(altered)}.",
            f"Run: npu-gateway rm {model_id}; then: {_supply(model_id)}",
        )
    checked = ", every byte verified" if verify else ""
    return Finding(
        _model(model_id), "ok", f"{model.kind}, {decimal(model.size_bytes)}, {model.source}{checked}"
    )


def check_leftover(left: Leftover) -> Finding:
    size = decimal(left.size_bytes)
    if left.state == "unfinished":
        return Finding(
            _model(left.id),
            "warn",
            f"Its download is unfinished ({size}).",
            f"Go on: {_supply(left.id)}. Or drop it: npu-gateway rm {left.id}",
        )
    advice = f"Run: {_supply(left.id)}"
    return Finding(_model(left.id), "fail", f"It is broken: files are missing or cut ({size}).", advice)


def check_choice(store: ModelStore, key: str, model_id: str) -> Finding:
    """The model that config.toml, or the default, says requests get. key: "embed" or "chat"."""
    name = f"default {key}"
    try:
        store.require(model_id)
    except ModelNotFound as error:
        if is_embedded(model_id):
            what = f"{model_id} is not here yet; `npu-gateway serve` fetches it."
            return Finding(name, "ok", what, f"Fetch it now: npu-gateway pull {model_id}")
        return Finding(name, "fail", str(error), f"Or choose another {key} in config.toml.")
    return Finding(name, "ok", model_id)


def home_and_config() -> tuple[Settings, Sequence[Finding]]:
    """Also the settings, which are the defaults if the file cannot be used."""
    home = Home.locate()
    problem = None
    try:
        settings = Settings.load()
    except BadInput as error:
        settings, problem = Settings(home), error
    folder = next(parent for parent in (home.root, *home.root.parents) if parent.exists())
    return settings, [
        check_place(home.root),
        check_writable(home.root),
        check_disk(shutil.disk_usage(folder).free),
        check_config(home.config_file, problem),
    ]


def models(settings: Settings, *, verify: bool) -> Sequence[Finding]:
    store = ModelStore(settings.home.models)
    engine = Engine(settings)  # not started: it only knows which models are the default ones
    return [
        check_choice(store, "embed", engine.default_model("embedding")),
        check_choice(store, "chat", engine.default_model("chat")),
        *(check_model(store, model.id, verify=verify) for model in store.list()),
        *(check_leftover(left) for left in store.leftovers()),
    ]


def _model(model_id: str) -> str:
    return f"model {model_id}"


def _supply(model_id: str) -> str:
    known = is_known(model_id)
    return f"npu-gateway pull {model_id}" if known else f"npu-gateway import FILE.gguf --id {model_id}"
