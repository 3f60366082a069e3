"""`npu-gateway pull ID --source hub` against a local server that speaks the hub's protocol."""

import json
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.cli.commands import environment, npu_gateway, started
from tests.engine.models.hub_server import COMMIT, HubServer

REPO = "BAAI/bge-small-en-v1.5"
# huggingface_hub writes chunks of 10 MiB to the disk: the file has two whole ones and a part.
CHUNK_BYTES = 10 << 20
WEIGHTS = random.Random(0).randbytes(2 * CHUNK_BYTES + 4321)
FILES = {
    "README.md": b"not asked for",
    "config.json": b'{"hidden_size": 384}',
    "onnx/model.onnx": WEIGHTS,
    "tokenizer.json": b'{"version": "1.0"}',
}
LISTING = f"GET /api/models/{REPO}/revision/main"
FILE = f"GET /{REPO}/resolve/{COMMIT}/"
PULL = ("pull", "bge-small-en-v1.5", "--source", "hub")

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file sizes")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(REPO, FILES) as server:
        yield server


def test_the_files_of_a_model_are_fetched_and_nothing_else_is_asked(hub: HubServer, tmp_path: Path) -> None:
    env = environment(tmp_path, HF_ENDPOINT=hub.url)

    done = npu_gateway(*PULL, env=env)

    folder = tmp_path / "models" / "bge-small-en-v1.5"
    assert (done.returncode, done.stdout) == (0, f"bge-small-en-v1.5 is installed in {folder} (21.0 MB).\n")
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "manifest.json"} == {
        "model.onnx": WEIGHTS,
        "tokenizer.json": FILES["tokenizer.json"],
        "config.json": FILES["config.json"],
    }
    assert hub.requests == [
        LISTING,
        f"{FILE}onnx/model.onnx",
        f"{FILE}tokenizer.json",
        f"{FILE}config.json",
    ]


def test_the_manifest_names_the_commit_that_the_files_are_from(hub: HubServer, tmp_path: Path) -> None:
    npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url))

    manifest = json.loads((tmp_path / "models" / "bge-small-en-v1.5" / "manifest.json").read_text())
    assert manifest["source"] == f"hub:{REPO}@{COMMIT}"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after = CHUNK_BYTES + 1234

    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert done.returncode == 0
    assert hub.requests[1:3] == [f"{FILE}onnx/model.onnx", f"{FILE}onnx/model.onnx bytes={CHUNK_BYTES}-"]


def test_a_pull_that_was_killed_goes_on_where_it_stopped(hub: HubServer, tmp_path: Path) -> None:
    env = environment(tmp_path, HF_ENDPOINT=hub.url)
    staging = tmp_path / "models" / ".staging" / "bge-small-en-v1.5"
    hub.stall_after = CHUNK_BYTES + 1234
    with started(*PULL, env=env):
        _eventually(lambda: any(f.stat().st_size == CHUNK_BYTES for f in staging.rglob("*.part")))
    hub.requests.clear()

    done = npu_gateway(*PULL, env=env)

    assert done.returncode == 0
    assert hub.requests[:2] == [LISTING, f"{FILE}onnx/model.onnx bytes={CHUNK_BYTES}-"]
    assert not staging.exists()


def test_a_file_that_arrives_damaged_is_named_and_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    hub.damage = 1

    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert done.returncode == 0
    assert "model.onnx arrived damaged, fetching it again\n" in done.stderr
    assert (tmp_path / "models" / "bge-small-en-v1.5" / "model.onnx").read_bytes() == WEIGHTS


def test_a_file_that_always_arrives_damaged_is_never_installed(hub: HubServer, tmp_path: Path) -> None:
    hub.damage = 99
    env = environment(tmp_path, HF_ENDPOINT=hub.url)

    done = npu_gateway(*PULL, env=env)

    assert done.returncode == 1
    assert "npu-gateway: model.onnx arrived damaged twice" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in (tmp_path / "models").rglob("*") if p.name.startswith("model.onnx")] == []


def test_small_files_are_verified_too(hub: HubServer, tmp_path: Path) -> None:
    """Git LFS states a SHA-256 for large files only; for the others there is Git's own blob id."""
    hub.files = {**FILES, "onnx/model.onnx": b"small"}
    hub.damage = 1

    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert "model.onnx arrived damaged, fetching it again\n" in done.stderr
    assert (tmp_path / "models" / "bge-small-en-v1.5" / "model.onnx").read_bytes() == b"small"


def test_the_users_token_is_sent(hub: HubServer, tmp_path: Path) -> None:
    hub.token = "hf_secret"

    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret"))

    assert done.returncode == 0


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "it refused access (HTTP 401). Set HF_TOKEN to a token that may read this repository."),
        (404, "it has no such repository, revision or file (HTTP 404)."),
        (429, "it limits how often you may ask (HTTP 429). Wait some minutes, or set HF_TOKEN."),
        (503, "it answered HTTP 503. Try again later."),
    ],
)
def test_a_refusal_of_the_hub_is_told_with_what_to_do(
    hub: HubServer, tmp_path: Path, status: int, advice: str
) -> None:
    hub.refuse_with = status

    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert (done.returncode, done.stderr) == (
        1,
        f"npu-gateway: {REPO} could not be fetched from the hub: {advice}\n",
    )


def test_a_page_in_place_of_the_hubs_answer_is_told(hub: HubServer, tmp_path: Path) -> None:
    hub.answer_html = True

    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert (done.returncode, done.stderr) == (
        1,
        f"npu-gateway: {REPO} could not be fetched from the hub: the answer is not the hub's. "
        "Check HF_ENDPOINT and the proxy.\n",
    )


def test_a_file_that_the_hub_no_longer_has_is_named(hub: HubServer, tmp_path: Path) -> None:
    hub.files = {path: content for path, content in FILES.items() if path != "tokenizer.json"}

    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert (done.returncode, done.stderr) == (
        1,
        f"npu-gateway: {REPO} on the hub no longer has tokenizer.json.\n",
    )


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_check(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{port}"))

    assert done.returncode == 1
    assert "Check the network, the proxy settings and HF_ENDPOINT." in done.stderr
    assert "Traceback" not in done.stderr


def test_offline_mode_is_honoured(hub: HubServer, tmp_path: Path) -> None:
    done = npu_gateway(*PULL, env=environment(tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1"))

    assert (done.returncode, done.stderr, hub.requests) == (
        1,
        f"npu-gateway: {REPO} could not be fetched from the hub: HF_HUB_OFFLINE is set. "
        "Unset it and try again.\n",
        [],
    )


@needs_posix
def test_a_full_disk_is_told_and_what_arrived_is_kept(hub: HubServer, tmp_path: Path) -> None:
    env = environment(tmp_path, HF_ENDPOINT=hub.url)
    largest_file = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({CHUNK_BYTES}, -1)); "

    done = npu_gateway(*PULL, env=env, prelude=largest_file)

    assert done.returncode == 1
    assert f"The disk of {tmp_path / 'models'} is full. Free some space" in done.stderr
    npu_gateway(*PULL, env=env)
    assert f"{FILE}onnx/model.onnx bytes={CHUNK_BYTES}-" in hub.requests


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.01)
