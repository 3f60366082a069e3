"""Compiled graphs on disk, one folder per bucket, keyed by everything that the result depends on.

A folder is built under a temporary name by a child process and renamed into place when it is complete.
Whatever a later start finds damaged, or made from something else, counts as absent. One binary per bucket:
binaries that share weights crash the emulator when loaded (QNN 2.51).
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnxruntime as ort

from engine.embedding.npu.buckets import Bucket, NpuFault
from engine.embedding.npu.compiler import CONTEXT, PROBES, REPORT
from engine.embedding.npu.device import Npu
from engine.embedding.npu.graph import RECIPE
from engine.embedding.npu.parity import Probes
from engine.embedding.npu.session import COMPILE_OPTIONS
from engine.files import move, remove_file, remove_folder, scratch_folder
from engine.models.files import sha256

logger = logging.getLogger(__name__)

COMPILER = (sys.executable, "-m", "engine.embedding.npu.compiler")
COMPILE_TIMEOUT_SECONDS = 600.0
"""The emulator takes 3 s to compile and up to 2 minutes for the first runs of the longest bucket."""

_SIDECAR = "context.json"


@dataclass(frozen=True)
class Context:
    """A verified folder. size_bytes: of the binary, about what it takes in memory once loaded."""

    bucket: Bucket
    folder: Path
    size_bytes: int

    @property
    def model(self) -> Path:
        return self.folder / CONTEXT

    def probes(self) -> Probes:
        """Raises NpuFault when the folder was removed in the meantime."""
        try:
            return Probes.load(self.folder / PROBES)
        except OSError as error:
            bucket = self.bucket
            raise NpuFault(f"The compiled {bucket} graph is gone: {error}", bucket=bucket) from error


class ContextCache:
    """The contexts of one model on one NPU.

    compiler: the command that fills a folder; see compiler.py for its arguments.
    """

    def __init__(
        self,
        folder: Path,
        model_folder: Path,
        npu: Npu,
        *,
        compiler: Sequence[str] = COMPILER,
        timeout_seconds: float = COMPILE_TIMEOUT_SECONDS,
    ) -> None:
        self._folder = folder
        self._model_folder = model_folder
        self._npu = npu
        self._compiler = compiler
        self._timeout_seconds = timeout_seconds

    def find(self, bucket: Bucket) -> Context | None:
        """The context if it is there, complete and made for exactly this model, device and software."""
        try:
            folder = self._place(bucket)
            sidecar = json.loads((folder / _SIDECAR).read_text(encoding="utf-8"))
            if sidecar["key"] != self._key(bucket) or sidecar["files"] != _digests(folder):
                raise ValueError("it was changed, or made for something else")
            size = max(file.stat().st_size for file in folder.iterdir())
            return Context(bucket, folder, size)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("The stored %s graph is not usable: %r", bucket, error)
            return None

    def compile(self, bucket: Bucket) -> Context:
        """Make the context anew, replacing what is there. Takes seconds to minutes; raises NpuFault."""
        started = time.perf_counter()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = f".{self._stem(bucket)}-"
            self._remove(temporary)  # left by one that was killed: only one process compiles for a model
            with scratch_folder(self._folder, temporary) as folder:
                built = folder / "context"
                built.mkdir()
                self._run_compiler(bucket, built, folder / "log")
                self._write_sidecar(bucket, built)
                self._publish(bucket, built)
        except OSError as error:
            raise NpuFault(f"The {bucket} graph cannot be stored: {error}", bucket=bucket) from error
        logger.info("compiled the %s graph in %.1f s", bucket, time.perf_counter() - started)
        context = self.find(bucket)
        if context is None:
            raise NpuFault(f"The {bucket} graph was damaged while it was stored.", bucket=bucket)
        return context

    def _run_compiler(self, bucket: Bucket, target: Path, log: Path) -> None:
        arguments = map(str, (self._model_folder, target, bucket.batch, bucket.sequence))
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [*self._compiler, *arguments],
                stdin=subprocess.PIPE,  # closed when this process ends, however it does
                stdout=output,
                stderr=output,
                env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            ) as process,
        ):
            try:
                status = process.wait(self._timeout_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                limit = f"{self._timeout_seconds:g} s"
                raise NpuFault(f"Compiling the {bucket} graph took over {limit}.", bucket=bucket) from None
        if status != 0:
            raise NpuFault(_why(bucket, status, log), bucket=bucket)

    def _write_sidecar(self, bucket: Bucket, folder: Path) -> None:
        report = folder / REPORT
        sidecar = {
            "key": self._key(bucket),
            "files": _digests(folder),
            "compiled_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **json.loads(report.read_text(encoding="utf-8")),
        }
        (folder / _SIDECAR).write_text(json.dumps(sidecar, indent=1), encoding="utf-8")
        remove_file(report)

    def _publish(self, bucket: Bucket, built: Path) -> None:
        """Put the new folder in its place and remove those of this bucket that other versions made."""
        place = self._place(bucket)
        remove_folder(place)
        move(built, place)
        self._remove(f"{self._stem(bucket)}-", keep=place)

    def _remove(self, prefix: str, *, keep: Path | None = None) -> None:
        for folder in self._folder.iterdir():
            if folder.name.startswith(prefix) and folder != keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _place(self, bucket: Bucket) -> Path:
        key = json.dumps(self._key(bucket), sort_keys=True)
        return self._folder / f"{self._stem(bucket)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def _stem(self, bucket: Bucket) -> str:
        return f"{self._model_folder.name}-{bucket}"

    def _key(self, bucket: Bucket) -> Mapping[str, str]:
        return self._versions | {"bucket": str(bucket)}

    @cached_property
    def _versions(self) -> dict[str, str]:
        import onnxruntime_qnn as qnn  # not installed everywhere, but where there is an Npu

        return {
            "model": sha256(self._model_folder / "model.onnx"),
            "recipe": str(RECIPE),
            "onnxruntime": ort.__version__,
            "onnxruntime_qnn": qnn.__version__,
            "device": self._npu.identity,
            "options": json.dumps(COMPILE_OPTIONS, sort_keys=True),
        }


def _why(bucket: Bucket, status: int, log: Path) -> str:
    if not 0 <= status < 256:  # killed by a signal, or on Windows by an exception such as 0xC0000005
        return f"Compiling the {bucket} graph crashed (status {status:#x})."
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), f"exit status {status}")
    return f"Compiling the {bucket} graph failed: {last.strip()}"


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name not in (_SIDECAR, REPORT)
    }
