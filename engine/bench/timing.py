"""How often to repeat, and what the times say."""

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Each measurement goes on for so many seconds, but for at least and at most so many runs."""

    seconds: float
    least_runs: int
    most_runs: int
    batch_tokens: int
    corpus_texts: int
    prompt_words: int
    decode_tokens: int


THOROUGH = Effort(
    seconds=3,
    least_runs=5,
    most_runs=500,
    batch_tokens=16_384,
    corpus_texts=1024,
    prompt_words=300,
    decode_tokens=128,
)
QUICK = Effort(
    seconds=0.3,
    least_runs=3,
    most_runs=50,
    batch_tokens=2048,
    corpus_texts=64,
    prompt_words=60,
    decode_tokens=16,
)


async def timed(run: Callable[[], Awaitable[None]], effort: Effort) -> list[float]:
    """Seconds of each run."""
    times: list[float] = []
    ends = time.perf_counter() + effort.seconds
    while len(times) < effort.least_runs or (len(times) < effort.most_runs and time.perf_counter() < ends):
        started = time.perf_counter()
        await run()
        times.append(time.perf_counter() - started)
    return times


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20, method="inclusive")[-1]
