"""Runs `npu-gateway` commands in processes of their own, with a home of their own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from engine.models.files import StoredFile
from engine.models.store import Manifest, ModelStore

RUN_MAIN = "from engine.cli import main; main()"


def environment(home: Path, **variables: str) -> Mapping[str, str]:
    """This process's environment, without the user's own hub settings and cache; what is printed is UTF-8."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {"NPU_GATEWAY_HOME": str(home), "HF_HOME": str(home / "hf"), "PYTHONUTF8": "1"} | variables


def npu_gateway(
    *arguments: str,
    env: Mapping[str, str],
    prelude: str = "",
    timeout_seconds: float = 60,
    encoding: str = "utf-8",
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """prelude: Python that runs in the process before the command does."""
    return subprocess.run(
        [sys.executable, "-c", prelude + RUN_MAIN, *arguments],
        env=env,
        input=stdin,
        capture_output=True,
        encoding=encoding,
        timeout=timeout_seconds,
        check=False,
    )


@contextlib.contextmanager
def started(*arguments: str, env: Mapping[str, str], prelude: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A command that is killed at the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", prelude + RUN_MAIN, *arguments],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def install_tiny(store: ModelStore, manifest: Manifest) -> None:
    """A model of 5 bytes; the manifest says all about it but its file."""
    with store.staging(manifest.id) as staging:
        content = staging.folder / "content"
        content.mkdir(parents=True)
        (content / "model.onnx").write_bytes(b"12345")
        files = (StoredFile.of(content / "model.onnx", content),)
        staging.publish(content, replace(manifest, files=files))
