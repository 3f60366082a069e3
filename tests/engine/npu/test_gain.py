"""Larger buckets are kept only where they are faster; the device here runs on a clock of its own."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.embedding.npu.buckets import Bucket, TokenIds
from engine.embedding.npu.gain import gain
from engine.embedding.npu.npu_worker import prepare_if_faster

BUCKET = Bucket(4, 32)


class ClockedNpu:
    """A run takes `run_seconds`, and `text_seconds` more for each of its texts."""

    def __init__(self, run_seconds: float, text_seconds: float) -> None:
        self.run_seconds = run_seconds
        self.text_seconds = text_seconds
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        self.now += self.run_seconds + self.text_seconds * len(token_ids)
        return np.zeros((len(token_ids), 384), np.float32)


def test_where_a_run_costs_more_than_a_text_a_batch_gains() -> None:
    npu = ClockedNpu(run_seconds=0.003, text_seconds=0.001)

    assert gain(npu, BUCKET, npu.clock) == pytest.approx((4 * 0.004) / (0.003 + 4 * 0.001))


def test_where_only_texts_cost_a_batch_gains_nothing() -> None:
    npu = ClockedNpu(run_seconds=0.0, text_seconds=0.004)

    assert gain(npu, BUCKET, npu.clock) == pytest.approx(1.0)


class PreparedNpu(ClockedNpu):
    def __init__(self, available: Sequence[Bucket]) -> None:
        super().__init__(0, 0)
        self.available = list(available)

    def prepare(self, bucket: Bucket) -> None:
        pass

    def available_buckets(self) -> tuple[Bucket, ...]:
        return tuple(self.available)

    def withdraw(self, bucket: Bucket) -> None:
        self.available.remove(bucket)


@pytest.mark.parametrize(("factor", "kept"), [(1.2, True), (1.0, False)], ids=["faster", "not-faster"])
def test_a_bucket_that_is_not_faster_is_withdrawn(
    factor: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.embedding.npu.npu_worker.gain", lambda npu, bucket: factor)
    npu = PreparedNpu([Bucket(1, 32), BUCKET])

    prepare_if_faster(npu, BUCKET)  # type: ignore[arg-type]

    assert (BUCKET in npu.available) is kept


def test_a_bucket_that_could_not_be_prepared_is_not_measured() -> None:
    npu = PreparedNpu([Bucket(1, 32)])

    prepare_if_faster(npu, BUCKET)  # type: ignore[arg-type]

    assert npu.available == [Bucket(1, 32)]
