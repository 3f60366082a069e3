"""Model files from a repository on the Hugging Face hub.

`huggingface_hub` makes the requests, so HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE hold. Its `hf_hub_download`
is not used: as of 2.4 it resumes within one call only and deletes the partial file when that call ends
(https://github.com/huggingface/huggingface_hub/pull/4228), with Xet storage too, and 2.7 GB must not start
again from nothing. `http_get` beneath it resumes from any file.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not in __all__
from huggingface_hub.utils.sha import git_hash
from huggingface_hub.utils.tqdm import silent_tqdm

from engine.errors import ModelSupplyError
from engine.files import move, remove_file
from engine.models.files import StoredFile, require_room, sha256
from engine.models.progress import Progress
from engine.models.registry import HubSource

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_METADATA_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class _RemoteFile:
    """sha256: of a large file (Git LFS); None for a small one, which has only Git's own blob id."""

    name: str
    url: str
    size_bytes: int
    sha256: str | None
    blob_id: str | None

    def is_whole(self, file: Path) -> bool:
        if not file.is_file() or file.stat().st_size != self.size_bytes:
            return False
        if self.sha256:
            return sha256(file) == self.sha256
        return git_hash(file.read_bytes()) == self.blob_id


def fetch(source: HubSource, target: Path, progress: Progress) -> tuple[str, tuple[StoredFile, ...]]:
    """Put the source's files, verified, into `target`, going on from what an earlier try left there.

    Returns the commit they are from, and the files.
    Raises ModelSupplyError, and OSError for what the disk refuses.
    """
    target.mkdir(parents=True, exist_ok=True)
    with _explained(source):
        commit, files = _look_up(source, HfApi())
        missing = [file for file in files if not file.is_whole(target / file.name)]
        require_room(target, sum(file.size_bytes - _size(_part(target, file)) for file in missing))
        for file in missing:
            _fetch_file(file, target, progress)
    return commit, tuple(StoredFile.of(target / file.name, target) for file in files)


def _look_up(source: HubSource, hub: HfApi) -> tuple[str, list[_RemoteFile]]:
    info = hub.model_info(
        source.repo, revision=source.revision, files_metadata=True, timeout=_METADATA_TIMEOUT_SECONDS
    )
    listed = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    if absent := [file.path for file in source.files if file.path not in listed]:
        raise ModelSupplyError(f"{source.repo} on the hub no longer has {', '.join(absent)}.")
    commit = info.sha or source.revision
    return commit, [
        _remote(listed[file.path], file.name, hf_hub_url(source.repo, file.path, revision=commit))
        for file in source.files
    ]


def _remote(listed: RepoSibling, name: str, url: str) -> _RemoteFile:
    if listed.size is None or not (listed.lfs or listed.blob_id):
        raise ModelSupplyError(f"{url}: the hub states no size or hash for this file, so it is not trusted.")
    return _RemoteFile(name, url, listed.size, listed.lfs.sha256 if listed.lfs else None, listed.blob_id)


def _fetch_file(file: _RemoteFile, target: Path, progress: Progress) -> None:
    part = _part(target, file)
    for doing in (f"fetching {file.name}", f"{file.name} arrived damaged, fetching it again"):
        _go_on(file, part, doing, progress)
        if file.is_whole(part):
            move(part, target / file.name)
            return
        remove_file(part)
    raise ModelSupplyError(
        f"{file.name} arrived damaged twice: it is not the file that {file.url} promises. "
        "Something between here and there (a proxy, a mirror) changes it."
    )


def _go_on(file: _RemoteFile, part: Path, doing: str, progress: Progress) -> None:
    """Fetch what `part` still lacks; http_get tries again by itself when the connection breaks."""

    def report(done: int) -> None:
        progress(doing, done, file.size_bytes)

    if _size(part) > file.size_bytes:
        remove_file(part)
    with _Growing(part, report) as sink:
        report(sink.tell())
        http_get(
            file.url,
            sink,
            resume_size=sink.tell(),
            headers=build_hf_headers(headers={"accept-encoding": "identity"}),  # offsets count plain bytes
            expected_size=file.size_bytes,
            tqdm_class=silent_tqdm,
        )


class _Growing(io.BufferedWriter):
    """A file opened for appending that reports its size after each write."""

    def __init__(self, path: Path, report: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._report = report

    def write(self, data: "ReadableBuffer", /) -> int:
        written = super().write(data)
        self._report(self.tell())
        return written


def _part(target: Path, file: _RemoteFile) -> Path:
    return target / f"{file.name}.part"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


@contextmanager
def _explained(source: HubSource) -> Iterator[None]:
    what = f"{source.repo} could not be fetched from the hub"
    again = "What has arrived is kept: run the same command again to go on."
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ModelSupplyError(f"{what}: HF_HUB_OFFLINE is set. Unset it and try again.") from error
    except HfHubHTTPError as error:
        raise ModelSupplyError(f"{what}: {_refusal(error.response.status_code)}.") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise ModelSupplyError(
            f"{what} ({reason}). Check the network, the proxy settings and HF_ENDPOINT. {again}"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's, not the network's
        raise ModelSupplyError(f"{what}: {error} {again}") from error
    except ValueError as error:  # a log-in page of the network, say
        raise ModelSupplyError(
            f"{what}: the answer is not the hub's. Check HF_ENDPOINT and the proxy."
        ) from error


def _refusal(status: int) -> str:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return f"it refused access (HTTP {status}). Set HF_TOKEN to a token that may read this repository"
        case HTTPStatus.NOT_FOUND:
            return "it has no such repository, revision or file (HTTP 404)"
        case HTTPStatus.TOO_MANY_REQUESTS:
            return "it limits how often you may ask (HTTP 429). Wait some minutes, or set HF_TOKEN"
        case _:
            return f"it answered HTTP {status}. Try again later"
