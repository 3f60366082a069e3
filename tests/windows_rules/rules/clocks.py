"""`time.monotonic`, and with it the clock of each event loop, ticks every 15.6 ms (before Python 3.13)."""

import time
from types import SimpleNamespace
from typing import Any

TICK_SECONDS = 0.015625


def enforce() -> None:
    monotonic, clock_info = time.monotonic, time.get_clock_info

    def coarse() -> float:
        return monotonic() // TICK_SECONDS * TICK_SECONDS

    def coarse_info(name: Any) -> Any:
        known = clock_info(name)
        if name != "monotonic":
            return known
        return SimpleNamespace(**vars(known) | {"resolution": TICK_SECONDS})

    time.monotonic = coarse
    time.get_clock_info = coarse_info
