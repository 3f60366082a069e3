"""Measures what texts cost on each device, and keeps the result until the device or its software changes."""

import json
import logging
import os
import statistics
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.embedding.batcher import BATCH_TOKENS
from engine.embedding.devices.costs import Cost
from engine.embedding.devices.device import EmbeddingDevice
from engine.files import move

logger = logging.getLogger(__name__)

REPEATS = 5
SLOW_SECONDS = 0.5
"""One run tells enough about an emulator; its batches run one by one anyway."""
TOKEN_ID = 1012
"""Any token will do: the time does not depend on it. This is BERT's full stop."""


async def measure(device: EmbeddingDevice, length: int) -> Cost:
    """Time a text of this length alone and in a batch, through the worker, as requests are run.

    The first run is not counted: it warms up the device. Medians, because the machine is doing other things.
    Raises what the device raises.
    """
    text = np.full(length, TOKEN_ID, np.int32)
    further = max(BATCH_TOKENS // length - 1, 1)
    warm_up = await _seconds(device, [text])
    if warm_up > SLOW_SECONDS:
        return Cost(warm_up, warm_up)
    first = statistics.median([await _seconds(device, [text]) for _ in range(REPEATS)])
    batch = statistics.median([await _seconds(device, [text] * (further + 1)) for _ in range(REPEATS)])
    return Cost(first, max(batch - first, 0.0) / further)


async def _seconds(device: EmbeddingDevice, texts: list[NDArray[np.int32]]) -> float:
    started = time.perf_counter()
    await device.run(texts)
    return time.perf_counter() - started


class CalibrationFile:
    """The costs measured on this machine, as long as what they depend on is the same."""

    def __init__(self, file: Path, *, model_revision: str, npu: str) -> None:
        self._file = file
        self._key = f"{model_revision}, onnxruntime {version('onnxruntime')}, {npu}"

    def read(self) -> Mapping[str, Mapping[int, Cost]]:
        """Per device and text length; empty when nothing was measured or it was on something else."""
        try:
            raw = json.loads(self._file.read_text(encoding="utf-8"))
            if raw["key"] != self._key:
                return {}
            return {
                device: {int(length): Cost(**cost) for length, cost in costs.items()}
                for device, costs in raw["costs"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is not usable, measuring again: %r", self._file, error)
            return {}

    def write(self, costs: Mapping[str, Mapping[int, Cost]]) -> None:
        """On a full disk the costs hold for as long as this process lives."""
        try:
            self._write(costs)
        except OSError as error:
            logger.warning("what the devices cost cannot be kept for the next start: %s", error)

    def _write(self, costs: Mapping[str, Mapping[int, Cost]]) -> None:
        raw = {
            "key": self._key,
            "costs": {d: {str(n): vars(cost) for n, cost in table.items()} for d, table in costs.items()},
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        move(temporary, self._file)
