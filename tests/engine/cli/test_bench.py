"""`npu-gateway bench` on the real embedded models. What it measures is the machine's business, not ours."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import __version__
from engine.bench.embeddings import Texts
from engine.bench.run import choose_devices
from engine.embedding.devices.npu_probe import NpuProbe
from engine.embedding.tokenizer import TextTokenizer
from engine.errors import EngineError
from engine.settings import Home
from engine.types import NpuStatus
from tests.engine.cli.commands import environment, npu_gateway

NONE = NpuProbe(NpuStatus(available=False, emulated=False, name=None, reason="No NPU was found."))
HEXAGON = NpuProbe(NpuStatus(available=True, emulated=False, name="Hexagon", reason=None))
EMULATOR = NpuProbe(NpuStatus(available=True, emulated=True, name="Emulator", reason=None))


@pytest.fixture(scope="module")
def report(models_home: Home) -> dict[str, Any]:
    arguments = ("bench", "--quick", "--json", "--device", "cpu")
    done = npu_gateway(*arguments, env=environment(models_home.root), timeout_seconds=300)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def numbers(value: object) -> Iterator[float]:
    """Every number anywhere inside."""
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float | int) and not isinstance(value, bool):
        yield value


def test_every_length_is_measured_on_the_cpu(report: dict[str, Any]) -> None:
    assert [(speed["device"], speed["tokens"]) for speed in report["lengths"]] == [
        ("cpu", tokens) for tokens in (32, 64, 128, 256, 512)
    ]


def test_every_measurement_is_positive(report: dict[str, Any]) -> None:
    measured = [report[part] for part in ("lengths", "corpus", "chat", "resident")]

    assert min(numbers(measured)) > 0


def test_percentiles_are_ordered(report: dict[str, Any]) -> None:
    assert all(speed["single_p50_ms"] <= speed["single_p95_ms"] for speed in report["lengths"])


def test_tokens_per_second_are_texts_per_second_times_the_length(report: dict[str, Any]) -> None:
    for speed in report["lengths"]:
        assert speed["tokens_per_second"] == pytest.approx(speed["texts_per_second"] * speed["tokens"])


def test_the_default_chat_model_decodes_all_that_it_was_asked_for(report: dict[str, Any]) -> None:
    assert (report["chat"]["model"], report["chat"]["decode_tokens"]) == ("smollm2-135m-instruct", 15)
    assert report["chat"]["prompt_tokens"] > 60


def test_the_memory_of_each_process_is_listed(report: dict[str, Any]) -> None:
    assert [part["process"] for part in report["resident"]] == [
        "bge-small-en-v1.5 (cpu)",
        "smollm2-135m-instruct",
        "engine (this process)",
    ]


def test_it_says_what_was_measured_when_and_where(report: dict[str, Any]) -> None:
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(report["date"])

    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)
    assert report["versions"]["npu-gateway"] == __version__
    assert report["machine"]["cores"] >= 1
    assert report["quick"] is True


def test_a_running_gateway_is_not_competed_with(gateway_home: Home) -> None:
    done = npu_gateway("bench", "--quick", env=environment(gateway_home.root))

    assert (done.returncode, done.stdout) == (1, "")
    assert "End it first: npu-gateway stop" in done.stderr


def test_nothing_is_fetched_to_be_measured(tmp_path: Path) -> None:
    done = npu_gateway("bench", env=environment(tmp_path))

    assert done.returncode == 1
    assert "npu-gateway pull smollm2-135m-instruct" in done.stderr


def test_each_device_that_is_there_is_measured() -> None:
    assert choose_devices(None, HEXAGON) == (("cpu", "npu"), ())
    assert choose_devices("npu", HEXAGON) == (("npu",), ())


def test_an_emulated_npu_is_measured_only_when_it_is_asked_for() -> None:
    devices, notes = choose_devices(None, EMULATOR)

    assert (devices, len(notes)) == (("cpu",), 1)
    assert choose_devices("npu", EMULATOR) == (("npu",), ())


def test_an_npu_that_is_not_there_cannot_be_asked_for() -> None:
    with pytest.raises(EngineError, match="No NPU was found"):
        choose_devices("npu", NONE)


def test_texts_have_the_length_asked_for_and_never_repeat(bge_folder: Path) -> None:
    tokenizer = TextTokenizer.load(bge_folder, 512)

    texts = Texts(tokenizer, 32)
    taken = texts.take(512, 20) + texts.take(512, 20)

    assert {len(ids) for ids in tokenizer.encode_batch(taken).ids} == {512}
    assert len(set(taken)) == len(taken)
