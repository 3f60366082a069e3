"""Many callers of the engine at once against one in a loop, and its memory over many texts.

    npu-gateway pull bge-small-en-v1.5
    python -m benchmarks.callers [--callers 64] [--texts 100000]

Runs the engine in this process, with its workers, on the CPU and without the cache of vectors.
"""

import asyncio
import time
from dataclasses import replace

import numpy as np
import psutil

from benchmarks.support.arguments import parser
from engine.engine import Engine
from engine.settings import Settings
from engine.types import EmbedRequest

MODEL = "bge-small-en-v1.5"
TEXTS_PER_REQUEST = 2000


async def main() -> None:
    options = parser("callers", __doc__)
    options.add_argument("--callers", type=int, default=64)
    options.add_argument("--requests", type=int, default=20, help="of each caller")
    options.add_argument("--texts", type=int, default=100_000, help="for the memory")
    arguments = options.parse_args()
    settings = replace(Settings.load(), device="cpu", embedding_cache_mb=0)
    async with Engine.start(settings) as engine:
        while engine.preparing():
            await asyncio.sleep(0.1)
        alone, alone_rate = await timed(engine, callers=1, requests=400)
        together, rate = await timed(engine, arguments.callers, arguments.requests)
        print(f"one caller in a loop: {alone_rate:.0f} texts/s, {percentiles(alone)}")
        print(f"{arguments.callers} callers: {rate:.0f} texts/s, {percentiles(together)}")
        print(f"{rate / alone_rate:.2f} times as fast")
        await watch_memory(engine, arguments.texts)


async def timed(engine: Engine, callers: int, requests: int) -> tuple[list[float], float]:
    """The seconds of each request, and texts per second over all."""
    seconds: list[float] = []

    async def call(caller: int) -> None:
        for number in range(requests):
            began = time.perf_counter()
            await engine.embed(EmbedRequest((f"short text {number} of caller {caller} among {callers}",)))
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(call(caller) for caller in range(callers)))
    return seconds, callers * requests / (time.perf_counter() - began)


def percentiles(seconds: list[float]) -> str:
    p50, p95, worst = np.percentile(seconds, [50, 95, 100]) * 1e3
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, worst {worst:.1f} ms"


async def watch_memory(engine: Engine, texts: int) -> None:
    began = time.perf_counter()
    for first in range(0, texts, TEXTS_PER_REQUEST):
        numbers = range(first, first + TEXTS_PER_REQUEST)
        await engine.embed(EmbedRequest(tuple(f"text number {n} of many that are short" for n in numbers)))
        if (first // TEXTS_PER_REQUEST) % 10 == 0:
            here, worker = psutil.Process().memory_info().rss, engine.model(MODEL).rss_bytes
            passed = time.perf_counter() - began
            print(
                f"{first:>7} texts, {passed:4.0f} s: {here >> 20} MiB here, {worker >> 20} MiB in the worker"
            )


if __name__ == "__main__":
    asyncio.run(main())
