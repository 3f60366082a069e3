"""The gate in front of compiled graphs. The devices are made up: each has one fault, or none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.embedding.npu.buckets import Bucket, NpuFault, TokenIds
from engine.embedding.npu.parity import Probes, check

BUCKET = Bucket(3, 32)
Floats = NDArray[np.float32]


def vector(ids: TokenIds) -> Floats:
    axis: Floats = np.eye(8, dtype=np.float32)[len(ids)]
    return axis


PROBES = Probes(
    token_ids=tuple(np.arange(length, dtype=np.int32) for length in (7, 6, 5, 4, 3)),
    references=np.stack([vector(range(length)) for length in (7, 6, 5, 4, 3)]),
)


@dataclass
class FaultyDevice:
    """fault: what happens to the vectors of a run."""

    fault: Callable[[Floats], Floats]
    runs: int = 0

    def run(self, token_ids: Sequence[TokenIds]) -> Floats:
        self.runs += 1
        return self.fault(np.stack([vector(ids) for ids in token_ids]))


def turned(vectors: Floats, row: int, cosine: float) -> Floats:
    """With one row turned away, so that its cosine to what it was is as given."""
    vectors[row] = cosine * vectors[row] + np.sqrt(1 - cosine**2) * np.eye(8, dtype=np.float32)[0]
    return vectors


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda vectors: turned(vectors, 0, 0.998), "is wrong: cosine 0.998"),
        (lambda vectors: turned(vectors, -1, 0.66), "is wrong: cosine 0.66"),
        (lambda vectors: vectors * np.float32(np.nan), "is wrong: cosine nan"),
        (lambda vectors: vectors * 0, "is wrong: cosine 0.0"),
        (lambda vectors: vectors[::-1].copy(), "is wrong: cosine 0.0"),
        (lambda vectors: turned(vectors, 0, 0.9995), "depends on the order of the batch: cosine 0.9995"),
    ],
    ids=[
        "first row",
        "last row",
        "no numbers",
        "zeros",
        "rows exchanged",
        "unlike the other rows",
    ],
)
def test_a_device_that_computes_something_else_does_not_pass(
    fault: Callable[[Floats], Floats], reason: str
) -> None:
    with pytest.raises(NpuFault, match=reason) as caught:
        check(FaultyDevice(fault), BUCKET, PROBES, thorough=True)

    assert caught.value.bucket == BUCKET


def test_the_lowest_cosine_of_all_rows_is_reported() -> None:
    device = FaultyDevice(lambda vectors: turned(vectors, 1, 0.99995))

    assert check(device, BUCKET, PROBES, thorough=True) == pytest.approx(0.99995)


@pytest.mark.parametrize(("thorough", "runs"), [(True, 5), (False, 2)])
def test_loading_costs_two_runs(thorough: bool, runs: int) -> None:
    device = FaultyDevice(lambda vectors: vectors)

    check(device, Bucket(1, 32), PROBES, thorough=thorough)

    assert device.runs == runs


def test_probes_are_read_as_they_were_written(tmp_path: Path) -> None:
    PROBES.save(tmp_path / "probes.npz")

    read = Probes.load(tmp_path / "probes.npz")

    assert [ids.tolist() for ids in read.token_ids] == [ids.tolist() for ids in PROBES.token_ids]
    np.testing.assert_array_equal(read.references, PROBES.references)
