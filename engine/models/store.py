"""The models installed in the gateway's home, one folder each with a manifest.json.

models/
    bge-small-en-v1.5/         appears whole, by one rename, and so disappears
        manifest.json
        model.onnx ...
        derived/               what the engine computed from the files; not in the manifest
    .staging/
        bge-small-en-v1.5/     an unfinished pull; the next one goes on from it
        bge-small-en-v1.5.lock
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from engine.errors import ModelNotFound, ModelSupplyError
from engine.files import move, remove_folder
from engine.models.files import StoredFile, explained_writes, folder_bytes, sha256
from engine.models.progress import Progress, silent
from engine.models.registry import MODELS
from engine.types import ModelKind

MANIFEST = "manifest.json"
_MODEL_ID = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True)
class Manifest:
    """What a model folder says about itself. source: "wheel:...", "hub:..." or "gguf:..."."""

    id: str
    kind: ModelKind
    revision: str
    context_tokens: int
    dimensions: int | None
    source: str
    files: tuple[StoredFile, ...]


@dataclass(frozen=True)
class InstalledModel:
    """revision: changes whenever any file does. size_bytes: of the files in the manifest.

    installed_at: Unix seconds.
    """

    id: str
    kind: ModelKind
    folder: Path
    revision: str
    context_tokens: int
    dimensions: int | None
    source: str
    size_bytes: int
    installed_at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Leftover:
    """Something that takes up room without being a model: a damaged model or an unfinished pull."""

    id: str
    state: Literal["broken", "unfinished"]
    size_bytes: int


@dataclass(frozen=True)
class Staging:
    """A place to prepare one model, held by one process at a time; its content outlives an interruption."""

    folder: Path
    destination: Path

    def publish(self, content: Path, manifest: Manifest) -> None:
        """Make `content`, a folder inside this one, the installed model."""
        (content / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
        remove_folder(self.destination)  # if there, it is broken: else the pull would not have begun
        move(content, self.destination)
        shutil.rmtree(self.folder, ignore_errors=True)  # what is left is scratch; the model is in place


class ModelStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._staging = folder / ".staging"

    def list(self) -> tuple[InstalledModel, ...]:
        models = (self.get(folder.name) for folder in _folders(self.folder))
        return tuple(model for model in models if model)

    def leftovers(self) -> tuple[Leftover, ...]:
        broken = [folder for folder in _folders(self.folder) if not self.get(folder.name)]
        unfinished = [(folder.name, folder_bytes(folder)) for folder in _folders(self._staging)]
        return (
            *(Leftover(folder.name, "broken", folder_bytes(folder)) for folder in broken),
            *(Leftover(name, "unfinished", size) for name, size in unfinished if size),
        )

    def get(self, model_id: str) -> InstalledModel | None:
        """None also for a model whose manifest is damaged, or whose files are not all there in full size."""
        folder = self.folder / model_id
        manifest = _read_manifest(folder) if _MODEL_ID.fullmatch(model_id) else None
        if manifest is None or manifest.id != model_id:
            return None
        return InstalledModel(
            id=model_id,
            kind=manifest.kind,
            folder=folder,
            revision=manifest.revision,
            context_tokens=manifest.context_tokens,
            dimensions=manifest.dimensions,
            source=manifest.source,
            size_bytes=sum(file.size_bytes for file in manifest.files),
            installed_at=_modified(folder / MANIFEST) // 10**9,
        )

    def require(self, model_id: str) -> InstalledModel:
        """Raises ModelNotFound, naming the command that fetches the model or else the models there are."""
        if model := self.get(model_id):
            return model
        raise ModelNotFound(self.why_missing(model_id))

    def why_missing(self, model_id: str) -> str:
        if _MODEL_ID.fullmatch(model_id) and self.is_broken(model_id):
            return f"Model {model_id!r} is damaged or incomplete. {self.way_back(model_id)}"
        if any(spec.id == model_id for spec in MODELS):
            return f"Model {model_id!r} is not installed; run `npu-gateway pull {model_id}`."
        known = dict.fromkeys([*(model.id for model in self.list()), *(spec.id for spec in MODELS)])
        return f"No model is called {model_id!r}. Known models: {', '.join(known)}."

    def state(self) -> tuple[tuple[str, int, int], ...]:
        """Changes whenever a model comes, goes or is replaced, or a file of one does."""
        return tuple(
            (folder.name, _modified(folder), _modified(folder / MANIFEST)) for folder in _folders(self.folder)
        )

    def altered(self, model_id: str) -> tuple[str, ...]:
        """Names of the model's files that are not what was installed. Reads every byte of them.

        Raises ModelNotFound.
        """
        folder = self.require(model_id).folder
        manifest = _read_manifest(folder)
        return _altered(folder, manifest) if manifest else ()  # None if it was removed in this moment

    def verify(self, model_id: str) -> None:
        """Read every byte of the model; what is damaged is put aside, so that it is never used again.

        Raises ModelSupplyError for damage, ModelNotFound.
        """
        damaged = self.altered(model_id)
        if not damaged:
            return
        for name in damaged:
            file = self.folder / model_id / name
            with suppress(FileNotFoundError), explained_writes(self.folder):
                move(file, file.with_name(f"{file.name}.damaged"))
        names = ", ".join(damaged)
        raise ModelSupplyError(
            f"{model_id} is damaged: {names} is not what was installed. {self.way_back(model_id)}"
        )

    def way_back(self, model_id: str) -> str:
        """What a person does about a model that is damaged."""
        if any(spec.id == model_id for spec in MODELS):
            return f"It is fetched again, as by `npu-gateway pull {model_id}`."
        return f"Import it again: `npu-gateway import FILE.gguf --id {model_id}`."

    def is_broken(self, model_id: str) -> bool:
        """It was installed once, and cannot be used any more."""
        return (self.folder / model_id).is_dir() and self.get(model_id) is None

    def remove(self, model_id: str) -> int:
        """Delete a model, a broken one too, and what an unfinished pull of it left. Returns the bytes freed.

        Raises ModelNotFound if there is neither, ModelSupplyError if another process uses or fetches it.
        """
        homes = [self.folder / model_id, self._staging / model_id]
        if not _MODEL_ID.fullmatch(model_id) or not any(home.is_dir() for home in homes):
            installed = ", ".join(model.id for model in self.list()) or "none"
            raise ModelNotFound(f"Model {model_id!r} is not installed. Installed models: {installed}.")
        with explained_writes(self.folder), self._locked(model_id, None):
            present = [home for home in homes if home.is_dir()]
            freed_bytes = sum(folder_bytes(home) for home in present)
            for home in present:
                self._discard(home)
        return freed_bytes

    @contextmanager
    def staging(self, model_id: str, progress: Progress = silent) -> Iterator[Staging]:
        """Waits while another process prepares the same model.

        Raises ModelSupplyError for an id that cannot be a model's, and for whatever the disk refuses.
        """
        if not _MODEL_ID.fullmatch(model_id):
            raise ModelSupplyError(
                f"{model_id!r} cannot be a model's id: use lower-case letters, digits, dots and dashes, "
                "with a letter or digit at both ends."
            )
        with explained_writes(self.folder), self._locked(model_id, progress):
            yield Staging(self._staging / model_id, self.folder / model_id)

    @contextmanager
    def _locked(self, model_id: str, progress: Progress | None) -> Iterator[None]:
        """progress None: do not wait."""
        self._staging.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._staging / f"{model_id}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if progress is None:
                raise ModelSupplyError(f"Another process is preparing {model_id}; stop that first.") from None
            progress(f"waiting for another process that works on {model_id}", 0, None)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _discard(self, home: Path) -> None:
        """Rename, then delete: whoever looks meanwhile sees a whole model or none."""
        doomed = self._staging / f".removed-{home.name}"
        remove_folder(doomed)
        try:
            move(home, doomed)
        except PermissionError as error:  # Windows: a file in it is open
            raise ModelSupplyError(
                f"{home} cannot be removed ({error}). If a gateway uses it, run `npu-gateway stop` first."
            ) from error
        remove_folder(doomed)


VERIFIED_FIRST_BYTES = 256 * 2**20
"""What SHA-256 reads in well under a second; larger models are verified while they already answer."""


def refuse_damaged(folder: Path) -> None:
    """For the process that is about to load this model: whatever damaged it, it must not be served.

    Raises ModelSupplyError.
    """
    manifest = _read_manifest(folder)
    if manifest is None or sum(file.size_bytes for file in manifest.files) > VERIFIED_FIRST_BYTES:
        return
    if damaged := _altered(folder, manifest):
        raise ModelSupplyError(f"{', '.join(damaged)} of {manifest.id} is not what was installed")


def _altered(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    return tuple(file.name for file in manifest.files if sha256(folder / file.name) != file.sha256)


def revision_of(files: tuple[StoredFile, ...]) -> str:
    """First 12 hex digits of the SHA-256 over every file's name and SHA-256, in order of name."""
    lines = sorted(f"{file.name} {file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def _folders(parent: Path) -> list[Path]:
    """Without those whose name begins with a dot."""
    if not parent.is_dir():
        return []
    return sorted(f for f in parent.iterdir() if f.is_dir() and not f.name.startswith("."))


def _modified(path: Path) -> int:
    """Unix nanoseconds; 0 if it is not there, or removed in this moment."""
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _read_manifest(folder: Path) -> Manifest | None:
    try:
        raw: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = tuple(StoredFile(f["name"], f["sha256"], f["size_bytes"]) for f in raw["files"])
        whole = all((folder / file.name).stat().st_size == file.size_bytes for file in files)
        manifest = Manifest(
            id=raw["id"],
            kind=raw["kind"],
            revision=raw["revision"],
            context_tokens=raw["context_tokens"],
            dimensions=raw["dimensions"],
            source=raw["source"],
            files=files,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if whole else None
