"""Model files from a repository on the Hugging Face hub.

`huggingface_hub` makes the requests, so HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE hold. Its `hf_hub_download`
is not used: as of 2.4 it resumes within one call only and deletes the partial file when that call ends
(https://github.com/huggingface/huggingface_hub/pull/4228), with Xet storage too, and 2.7 GB must not start
again from nothing. `http_get` beneath it resumes from any file.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from huggingface_hub import hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not in __all__
from huggingface_hub.utils.tqdm import silent_tqdm

from engine.errors import ModelSupplyError
from engine.files import move, remove_file
from engine.models.files import StoredFile, is_whole, require_room
from engine.models.progress import Progress
from engine.models.registry import HubSource, SourceFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def fetch(source: HubSource, target: Path, progress: Progress) -> tuple[StoredFile, ...]:
    """Put the source's files, verified, into `target`, going on from what an earlier try left there.

    Raises ModelSupplyError, and OSError for what the disk refuses.
    """
    target.mkdir(parents=True, exist_ok=True)
    missing = [file for file in source.files if not is_whole(target / file.name, file)]
    require_room(target, sum(file.size_bytes - _size(_part(target, file)) for file in missing))
    with _explained(source):
        for file in missing:
            _fetch_file(file, hf_hub_url(source.repo, file.path, revision=source.commit), target, progress)
    return tuple(StoredFile.of(target / file.name, target) for file in source.files)


def _fetch_file(file: SourceFile, url: str, target: Path, progress: Progress) -> None:
    part = _part(target, file)
    for doing in (f"fetching {file.name}", f"{file.name} arrived damaged, fetching it again"):
        _go_on(file, url, part, doing, progress)
        if is_whole(part, file):
            move(part, target / file.name)
            return
        remove_file(part)
    raise ModelSupplyError(
        f"{file.name} arrived damaged twice: what {url} gives is not the file that this version knows. "
        "Something between here and there (a proxy, a mirror, the log-in page of a network) changes it."
    )


def _go_on(file: SourceFile, url: str, part: Path, doing: str, progress: Progress) -> None:
    """Fetch what `part` still lacks; http_get tries again by itself when the connection breaks."""

    def report(done: int) -> None:
        progress(doing, done, file.size_bytes)

    if _size(part) > file.size_bytes:
        remove_file(part)
    with _Growing(part, report) as sink, _of_another_size():
        report(sink.tell())
        http_get(
            url,
            sink,
            resume_size=sink.tell(),
            headers=build_hf_headers(headers={"accept-encoding": "identity"}),  # offsets count plain bytes
            expected_size=file.size_bytes,
            tqdm_class=silent_tqdm,
        )


@contextmanager
def _of_another_size() -> Iterator[None]:
    """http_get raises a bare OSError for it; the comparison of hashes that follows says it better."""
    try:
        yield
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise  # the hub's own, or the disk's


class _Growing(io.BufferedWriter):
    """A file opened for appending that reports its size after each write."""

    def __init__(self, path: Path, report: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._report = report

    def write(self, data: "ReadableBuffer", /) -> int:
        written = super().write(data)
        self._report(self.tell())
        return written


def _part(target: Path, file: SourceFile) -> Path:
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
