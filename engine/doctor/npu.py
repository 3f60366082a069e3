"""The NPU: whether there is one, what was compiled for it, and whether its speed is known."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.filesize import decimal

from engine.doctor.finding import Finding
from engine.doctor.software import architectures, installed_version
from engine.embedding.calibration import CalibrationFile
from engine.embedding.devices.costs import LENGTHS, Cost
from engine.embedding.devices.npu_probe import NpuProbe, probe_npu
from engine.embedding.npu import EMULATION_VARIABLE
from engine.models.files import folder_bytes, sha256
from engine.models.store import ModelStore
from engine.settings import DeviceChoice, Settings
from engine.types import NpuStatus

_UPDATE = (
    "Update the NPU's driver (Settings > Windows Update > Advanced options > Optional updates) and restart."
)

_WITHOUT_NPU = (
    "Repair what fails above, if anything does. Else update the NPU's driver; "
    'until then, set device = "cpu" in config.toml.'
)


def check_npu(probe: NpuProbe, *, expected: bool, choice: DeviceChoice) -> Finding:
    """expected: machines of this kind have an NPU that we can use."""
    name, status = "npu", probe.status
    if probe.failure:
        return Finding(name, "fail", probe.failure, _WITHOUT_NPU)
    if status.emulated:
        return Finding(
            name,
            "warn",
            f"{status.name}: slow, for tests only.",
            f"Unset {EMULATION_VARIABLE}.",
        )
    if status.available:
        return Finding(name, "ok", str(status.name))
    if expected:
        return Finding(name, "warn", f"{status.reason} The CPU does all work.", _UPDATE)
    if choice == "npu":
        return Finding(
            name,
            "warn",
            f"{status.reason} But device = npu is configured.",
            'Set device = "auto" in config.toml.',
        )
    return Finding(name, "ok", f"None: {status.reason} The CPU does all work.")


def check_emulation(value: str | None) -> Finding:
    name = "emulation"
    if value == "1":
        return Finding(
            name, "warn", f"{EMULATION_VARIABLE}=1: for tests only.", f"Unset {EMULATION_VARIABLE}."
        )
    return Finding(name, "ok", "Off.")


def check_qnn(versions: Mapping[str, str]) -> Finding:
    """versions: of the QNN libraries inside the wheel; empty without the wheel."""
    shown = ", ".join(f"{name} {number}" for name, number in versions.items())
    return Finding("qnn", "ok", shown or "onnxruntime-qnn is not installed.")


@dataclass(frozen=True)
class StoredContext:
    """A compiled graph on disk. bucket: "1x32"; None: its description or a file of it is damaged."""

    folder: str
    bucket: str | None
    size_bytes: int
    versions: Mapping[str, str]


def check_contexts(contexts: Sequence[StoredContext], current: Mapping[str, str | None]) -> Finding:
    """current: the installed versions, by the names that contexts store them under."""
    name = "compiled graphs"
    if not contexts:
        return Finding(name, "ok", "None. They are made when a gateway first runs with an NPU.")
    damaged = [context.folder for context in contexts if context.bucket is None]
    if damaged:
        return Finding(
            name,
            "warn",
            f"Damaged: {', '.join(damaged)}.",
            "Start the gateway: it makes them anew, the CPU does the work meanwhile.",
        )
    usable = [context for context in contexts if context.versions == current]
    total = decimal(sum(context.size_bytes for context in contexts))
    what = f"{_buckets(usable)}, {total}."
    outdated = [context for context in contexts if context not in usable]
    if outdated:
        made_by = sorted({_versions(context.versions) for context in outdated})
        what += f" To be remade by the next gateway: {_buckets(outdated)}, of {'; '.join(made_by)}."
    return Finding(name, "ok", what)


def stored_contexts(folder: Path, *, verify: bool) -> list[StoredContext]:
    """verify: hash every file."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [_stored(entry, verify) for entry in found if entry.is_dir() and not entry.name.startswith(".")]


def _stored(folder: Path, verify: bool) -> StoredContext:
    size = folder_bytes(folder)
    try:
        described = json.loads((folder / "context.json").read_text(encoding="utf-8"))
        key, files = dict(described["key"]), dict(described["files"])
        intact = all((folder / name).is_file() for name in files)
        if verify:
            intact = intact and all(sha256(folder / name) == digest for name, digest in files.items())
        versions = {name: key[name] for name in ("onnxruntime", "onnxruntime_qnn")}
        return StoredContext(folder.name, key["bucket"] if intact else None, size, versions)
    except (OSError, ValueError, KeyError, TypeError):
        return StoredContext(folder.name, None, size, {})


def check_calibration(
    npu: NpuStatus, choice: DeviceChoice, costs: Mapping[str, Mapping[int, Cost]]
) -> Finding:
    """costs: as CalibrationFile reads them, per device and text length."""
    name = "calibration"
    if not npu.available or choice != "auto":
        return Finding(name, "ok", "Not needed: there is no choice of devices.")
    known = set(costs.get("cpu", {})) & set(costs.get("npu", {}))
    if not known:
        return Finding(
            name,
            "warn",
            "Not measured with the software installed now: texts go to the CPU until it is.",
            "Start the gateway and leave it alone for some minutes: npu-gateway serve",
        )
    faster = [
        n for n in LENGTHS if n in known and costs["npu"][n].first_seconds < costs["cpu"][n].first_seconds
    ]
    shown = ", ".join(map(str, faster)) or "none"
    return Finding(
        name,
        "ok",
        f"Measured for {len(known)} text lengths; the NPU is faster for one text of (tokens): {shown}.",
    )


def npu(settings: Settings, *, verify: bool) -> Sequence[Finding]:
    probe = probe_npu()
    current = {name.replace("-", "_"): installed_version(name) for name in ("onnxruntime", "onnxruntime-qnn")}
    return [
        check_npu(probe, expected=os.name == "nt" and architectures()[1] == "ARM64", choice=settings.device),
        check_emulation(os.environ.get(EMULATION_VARIABLE)),
        check_qnn(qnn_versions()),
        check_contexts(stored_contexts(settings.home.contexts, verify=verify), current),
        check_calibration(probe.status, settings.device, _costs(settings, probe)),
    ]


def qnn_versions() -> Mapping[str, str]:
    """What the installed wheel says about itself, without loading its libraries."""
    spec = find_spec("onnxruntime_qnn")
    if spec is None or spec.origin is None:
        return {}
    about = Path(spec.origin).with_name("build_and_package_info.py")
    pairs = (line.partition("=") for line in about.read_text(encoding="utf-8").splitlines())
    stated = {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
    return {"QNN": stated["qnn_version"]} if "qnn_version" in stated else {}


def _costs(settings: Settings, probe: NpuProbe) -> Mapping[str, Mapping[int, Cost]]:
    model = ModelStore(settings.home.models).get(settings.embed)
    if model is None or probe.identity is None:
        return {}
    file = settings.home.contexts / f"calibration-{model.id}.json"
    return CalibrationFile(file, model_revision=model.revision, npu=probe.identity).read()


def _buckets(contexts: Sequence[StoredContext]) -> str:
    return (
        ", ".join(sorted((str(c.bucket) for c in contexts), key=lambda b: int(b.split("x")[-1])))
        or "none usable"
    )


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
