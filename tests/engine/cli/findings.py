"""Facts for the tests of doctor."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from engine import __version__
from engine.daemon import Endpoint
from engine.doctor import Finding, npu
from engine.models.files import StoredFile
from engine.types import Health, MemoryStatus, ModelStatus, NpuStatus, QueueStatus
from tests.engine.cli.commands import environment, npu_gateway

NONE = NpuStatus(available=False, emulated=False, name=None, reason="No NPU was found.")


HEXAGON = NpuStatus(available=True, emulated=False, name="Hexagon", reason=None)


EMULATOR = NpuStatus(available=True, emulated=True, name="HTP emulator", reason=None)


VERSIONS = {"onnxruntime": "1.32.0", "onnxruntime_qnn": "2.7.0"}


ENDPOINT = Endpoint(
    url="http://127.0.0.1:8000",
    token="secret",
    pid=7,
    version=__version__,
    api=1,
    instance="i",
    auto_started=True,
)


def verdict(finding: Finding) -> tuple[str, bool]:
    """Its state, and whether it says what to do."""
    return finding.state, finding.what_to_do is not None


def context(bucket: str | None, versions: Mapping[str, str] = VERSIONS) -> npu.StoredContext:
    return npu.StoredContext(f"bge-{bucket}", bucket, 67_000_000, versions)


def write_context(folder: Path, content: bytes) -> None:
    """As the gateway stores it: a file and a description with its hash."""
    folder.mkdir(parents=True)
    (folder / "context.onnx").write_bytes(content)
    digest = StoredFile.of(folder / "context.onnx", folder).sha256
    described = {"key": VERSIONS | {"bucket": "1x32"}, "files": {"context.onnx": digest}}
    (folder / "context.json").write_text(json.dumps(described), encoding="utf-8")


def health(status: str, detail: str | None = None) -> Health:
    model = ModelStatus("bge", "embedding", "ready", "cpu", "r", detail, 512, 384, 0, 0, 0)
    return Health(
        status=status,  # type: ignore[arg-type]
        version=__version__,
        uptime_seconds=1.0,
        npu=NONE,
        models=(model,),
        memory=MemoryStatus(0),
        queue=QueueStatus(0, 0),
    )


def doctor(
    root: Path, *arguments: str, **variables: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Finding]]:
    done = npu_gateway("doctor", "--json", *arguments, env=environment(root, **variables))
    findings = [Finding(**raw) for raw in json.loads(done.stdout)["findings"]]
    return done, {finding.name: finding for finding in findings}
