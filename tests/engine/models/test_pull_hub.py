"""`npu-gateway pull ID --source hub` against a local server that speaks the hub's protocol."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.engine.cli.commands import environment, npu_gateway, started
from tests.engine.models.hub_files import CHUNK_BYTES, FILES, REPO, WEIGHTS
from tests.engine.models.hub_server import COMMIT, HubServer

FILE = f"GET /{REPO}/resolve/{COMMIT}/"
PINNED = "from tests.engine.models import hub_files; hub_files.pin(); "
PULL = ("pull", "bge-small-en-v1.5", "--source", "hub")

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file sizes")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(REPO, FILES) as server:
        yield server


def test_the_files_of_a_model_are_fetched_and_nothing_else_is_asked(hub: HubServer, tmp_path: Path) -> None:
    env = environment(tmp_path, HF_ENDPOINT=hub.url)

    done = _pull(env=env)

    folder = tmp_path / "models" / "bge-small-en-v1.5"
    assert (done.returncode, done.stdout) == (0, f"bge-small-en-v1.5 is installed in {folder} (21.0 MB).\n")
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "manifest.json"} == {
        "model.onnx": WEIGHTS,
        "tokenizer.json": FILES["tokenizer.json"],
        "config.json": FILES["config.json"],
    }
    assert hub.requests == [
        f"{FILE}onnx/model.onnx",
        f"{FILE}tokenizer.json",
        f"{FILE}config.json",
    ]


def test_the_manifest_names_the_commit_that_the_files_are_from(hub: HubServer, tmp_path: Path) -> None:
    _pull(env=environment(tmp_path, HF_ENDPOINT=hub.url))

    manifest = json.loads((tmp_path / "models" / "bge-small-en-v1.5" / "manifest.json").read_text())
    assert manifest["source"] == f"hub:{REPO}@{COMMIT}"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after = CHUNK_BYTES + 1234

    done = _pull(env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert done.returncode == 0
    assert hub.requests[:2] == [f"{FILE}onnx/model.onnx", f"{FILE}onnx/model.onnx bytes={CHUNK_BYTES}-"]


def test_a_pull_that_was_killed_goes_on_where_it_stopped(hub: HubServer, tmp_path: Path) -> None:
    env = environment(tmp_path, HF_ENDPOINT=hub.url)
    staging = tmp_path / "models" / ".staging" / "bge-small-en-v1.5"
    hub.stall_after = CHUNK_BYTES + 1234
    with started(*PULL, env=env, prelude=PINNED):
        _eventually(lambda: any(f.stat().st_size == CHUNK_BYTES for f in staging.rglob("*.part")))
    hub.requests.clear()

    done = _pull(env=env)

    assert done.returncode == 0
    assert hub.requests[0] == f"{FILE}onnx/model.onnx bytes={CHUNK_BYTES}-"
    assert not staging.exists()


def test_a_file_that_arrives_damaged_is_named_and_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    hub.damage = 1

    done = _pull(env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert done.returncode == 0
    assert "model.onnx arrived damaged, fetching it again\n" in done.stderr
    assert (tmp_path / "models" / "bge-small-en-v1.5" / "model.onnx").read_bytes() == WEIGHTS


def test_a_file_that_always_arrives_damaged_is_never_installed(hub: HubServer, tmp_path: Path) -> None:
    hub.damage = 99
    env = environment(tmp_path, HF_ENDPOINT=hub.url)

    done = _pull(env=env)

    assert done.returncode == 1
    assert "npu-gateway: model.onnx arrived damaged twice" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in (tmp_path / "models").rglob("*") if p.name.startswith("model.onnx")] == []


@pytest.mark.parametrize(
    "content",
    [WEIGHTS[:-1] + b"?", WEIGHTS + b"?", WEIGHTS[:-1], b""],
    ids=["altered", "longer", "shorter", "empty"],
)
def test_a_file_that_the_hub_has_replaced_is_never_installed(
    hub: HubServer, tmp_path: Path, content: bytes
) -> None:
    hub.files = {**FILES, "onnx/model.onnx": content}

    done = _pull(env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert (done.returncode, "model.onnx arrived damaged twice" in done.stderr) == (1, True)
    assert [p.name for p in (tmp_path / "models").rglob("*") if p.name.startswith("model.onnx")] == []


def test_the_users_token_is_sent(hub: HubServer, tmp_path: Path) -> None:
    hub.token = "hf_secret"

    done = _pull(env=environment(tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret"))

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

    done = _pull(env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        f"npu-gateway: {REPO} could not be fetched from the hub: {advice}",
    )


def test_a_page_in_place_of_a_file_is_told(hub: HubServer, tmp_path: Path) -> None:
    hub.answer_html = True

    done = _pull(env=environment(tmp_path, HF_ENDPOINT=hub.url))

    assert done.returncode == 1
    assert "the log-in page of a network" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_check(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    done = _pull(env=environment(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{port}"))

    assert done.returncode == 1
    assert "Check the network, the proxy settings and HF_ENDPOINT." in done.stderr
    assert "Traceback" not in done.stderr


def test_offline_mode_is_honoured(hub: HubServer, tmp_path: Path) -> None:
    done = _pull(env=environment(tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1"))

    assert (done.returncode, done.stderr.splitlines()[-1], hub.requests) == (
        1,
        f"npu-gateway: {REPO} could not be fetched from the hub: HF_HUB_OFFLINE is set. "
        "Unset it and try again.",
        [],
    )


@needs_posix
def test_a_full_disk_is_told_and_what_arrived_is_kept(hub: HubServer, tmp_path: Path) -> None:
    env = environment(tmp_path, HF_ENDPOINT=hub.url)
    largest_file = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({CHUNK_BYTES}, -1)); "

    done = _pull(env=env, prelude=largest_file)

    assert done.returncode == 1
    assert f"The disk of {tmp_path / 'models'} is full. Free some space" in done.stderr
    _pull(env=env)
    assert f"{FILE}onnx/model.onnx bytes={CHUNK_BYTES}-" in hub.requests


def _pull(*, env: Mapping[str, str], prelude: str = "") -> CompletedProcess[str]:
    return npu_gateway(*PULL, env=env, prelude=PINNED + prelude)


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.01)
