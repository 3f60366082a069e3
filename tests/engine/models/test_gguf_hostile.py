"""Files that are damaged or made to do harm cost little and are refused in one sentence."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.models.bad_gguf import BYTES, METADATA, Refusal, Trial, u32, u64
from tests.engine.models.bad_gguf import refusal as tried
from tests.engine.models.gguf_files import TinyGguf

NAMES = [*BYTES, *METADATA, "a token of a million characters", "a folder"]
PROCESSOR_SECONDS = 2.0
MEMORY_BYTES = 200 << 20


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.models.bad_gguf", str(tmp_path_factory.mktemp("bad"))],
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    found = json.loads(done.stdout)
    return Trial({name: Refusal(**told) for name, told in found["refusals"].items()}, found["peak_bytes"])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_impossible_numbers_is_refused_in_a_sentence(trial: Trial, name: str) -> None:
    message = trial.refusals[name].message

    assert message is not None
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a name")
def test_a_pipe_is_refused_without_waiting_for_who_writes_to_it(trial: Trial) -> None:
    assert str(trial.refusals["a pipe"].message).endswith("pipe.gguf cannot be read: it is not a file")


def test_a_file_is_refused_wherever_it_was_cut(trial: Trial) -> None:
    cuts = {name: told.message for name, told in trial.refusals.items() if name.startswith("cut after")}

    assert len(cuts) > 100
    assert [name for name, message in cuts.items() if message is None] == []


def test_no_refusal_takes_long(trial: Trial) -> None:
    slow = {name: told for name, told in trial.refusals.items() if told.processor_seconds > PROCESSOR_SECONDS}

    assert slow == {}


def test_no_refusal_takes_much_memory(trial: Trial) -> None:
    assert trial.peak_bytes < MEMORY_BYTES


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (
        TinyGguf(layers=1, hidden=64, intermediate=64)
        .write(tmp_path_factory.mktemp("whole") / "w.gguf")
        .read_bytes()
    )


EXTREMES = st.sampled_from([u64(0), u64(2**62), u64(2**64 - 1), u32(0), u32(2**31), u32(2**32 - 1), b"\xff"])
HEADER_BYTES = 8_000


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, HEADER_BYTES), EXTREMES | st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=3,
    )
)
def test_a_damaged_header_is_imported_or_refused_and_nothing_else(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    content = bytearray(whole)
    for position, new in changes:
        content[position : position + len(new)] = new
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "damaged.gguf").write_bytes(content)

    told = tried(folder / "damaged.gguf", folder / "imported")  # whatever else it raises fails the test

    assert told.processor_seconds < PROCESSOR_SECONDS
