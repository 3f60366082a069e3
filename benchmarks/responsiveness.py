"""How fast the gateway answers /healthz while a chat prompt of 1,000 tokens is being read.

    npu-gateway serve &
    python -m benchmarks.responsiveness [--url URL] [--model ID] [--prompts 10]

Each prompt begins differently, so that no remembered prefix shortens the reading. Prints the quiet latency
and the one during prefill, in milliseconds.
"""

import asyncio
import os
import time
import uuid

import httpx2

from benchmarks.support.arguments import parser

WORDS = "the quick brown fox jumps over the lazy dog and runs away from it "


async def main() -> None:
    options = parser("responsiveness", __doc__)
    options.add_argument("--url", default="http://127.0.0.1:8000")
    options.add_argument("--model", default="smollm2-135m-instruct")
    options.add_argument("--prompts", type=int, default=10)
    arguments = options.parse_args()
    token = os.environ.get("NPU_GATEWAY_TOKEN", "unused")
    async with httpx2.AsyncClient(
        base_url=arguments.url, timeout=300, trust_env=False, headers={"Authorization": f"Bearer {token}"}
    ) as http:
        report("quiet", await healthz_until(http, asyncio.create_task(asyncio.sleep(3))))
        reading = asyncio.create_task(read_prompts(http, arguments.model, arguments.prompts))
        report("during prefill", await healthz_until(http, reading))
        print(f"prompt tokens: {reading.result()}")


async def read_prompts(http: httpx2.AsyncClient, model: str, count: int) -> list[int]:
    lengths = []
    for _ in range(count):
        prompt = f"{uuid.uuid4()} {WORDS * 70}"
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 1}
        reply = await http.post("/v1/chat/completions", json=body)
        reply.raise_for_status()
        lengths.append(reply.json()["usage"]["prompt_tokens"])
    return lengths


async def healthz_until(http: httpx2.AsyncClient, task: "asyncio.Task[object]") -> list[float]:
    seconds = []
    while not task.done():
        started = time.perf_counter()
        (await http.get("/healthz")).raise_for_status()
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(0.005)
    return sorted(seconds)


def report(when: str, seconds: list[float]) -> None:
    p50, p99 = (seconds[int(len(seconds) * share)] * 1e3 for share in (0.5, 0.99))
    print(
        f"/healthz {when}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {seconds[-1] * 1e3:.1f} ms "
        f"({len(seconds)} calls)"
    )


if __name__ == "__main__":
    asyncio.run(main())
