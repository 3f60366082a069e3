"""Many clients at once, in waves: does each get the right answer or a 429, and does the memory come back?

    npu-gateway serve &     # with embedding_cache_mb = 0 in config.toml, or texts are embedded only once
    python -m benchmarks.crowd [--url URL] [--clients 200] [--waves 5]

Three of four clients chat (one of them streams), one embeds. Right is what the same request gets
when it is alone: the same text at temperature 0, the same vector but for rounding. Exit status 1 if a client
got anything else, or a 429 without Retry-After.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any

import httpx2
import numpy as np

from benchmarks.support.arguments import parser

QUESTIONS = (
    "What is the capital of France?",
    "Name three fruits.",
    "Write a sentence about the sea.",
    "What do cats eat?",
    "Why is the sky blue?",
)
TEXTS = tuple(f"{question} This is text number {number}." for number, question in enumerate(QUESTIONS))
SECONDS = 300


async def main() -> None:
    options = parser("crowd", __doc__)
    options.add_argument("--url", default="http://127.0.0.1:8000")
    options.add_argument("--clients", type=int, default=200)
    options.add_argument("--waves", type=int, default=5)
    options.add_argument("--tokens", type=int, default=16, help="of each answer")
    arguments = options.parse_args()
    token = os.environ.get("NPU_GATEWAY_TOKEN", "unused")
    async with httpx2.AsyncClient(
        base_url=arguments.url,
        timeout=SECONDS,
        trust_env=False,
        limits=httpx2.Limits(max_connections=arguments.clients),
        headers={"Authorization": f"Bearer {token}"},
    ) as http:
        crowd = Crowd(http, arguments.tokens)
        await crowd.learn()
        print("wave  seconds  right  429  other  resident MiB: total, of each model")
        print(f"   0{'':27}  {await memory(http)}")
        for wave in range(1, arguments.waves + 1):
            began = time.perf_counter()
            outcomes = Counter(
                await asyncio.gather(*(crowd.outcome(number) for number in range(arguments.clients)))
            )
            seconds = time.perf_counter() - began
            right, refused = outcomes.pop("right", 0), outcomes.pop("429", 0)
            line = f"{wave:>4}{seconds:>9.1f}{right:>7}{refused:>5}{outcomes.total():>7}"
            print(f"{line}  {await memory(http)}", *outcomes.items())
            crowd.wrong += outcomes.total()
    sys.exit(1 if crowd.wrong else 0)


class Crowd:
    """wrong: how many outcomes were neither right nor a proper refusal."""

    def __init__(self, http: httpx2.AsyncClient, tokens: int) -> None:
        self.wrong = 0
        self._http = http
        self._tokens = tokens
        self._answers: list[str] = []
        self._vectors: list[list[float]] = []

    async def learn(self) -> None:
        for number in range(len(QUESTIONS)):
            self._answers.append(answer_of(await self._chat(number, stream=False)))
            self._vectors.append(vector_of(await self._embed(number)))

    async def outcome(self, number: int) -> str:
        """right, wrong, 429, or what else happened to a client."""
        kind, which = number % 4, number % len(QUESTIONS)
        try:
            async with asyncio.timeout(SECONDS):
                reply = await (self._embed(which) if kind == 3 else self._chat(which, stream=kind == 1))
        except (TimeoutError, httpx2.HTTPError) as error:
            return type(error).__name__
        if reply.status_code == 429:
            return "429" if reply.headers.get("retry-after", "").isdigit() else "429 without Retry-After"
        if reply.status_code != 200:
            return str(reply.status_code)
        if kind == 3:
            right = bool(np.dot(vector_of(reply), self._vectors[which]) > 0.99999)
        else:
            right = answer_of(reply) == self._answers[which]
        return "right" if right else f"wrong {'vector' if kind == 3 else 'answer'}"

    async def _chat(self, which: int, *, stream: bool) -> httpx2.Response:
        body = {
            "messages": [{"role": "user", "content": QUESTIONS[which]}],
            "temperature": 0,
            "max_tokens": self._tokens,
            "stream": stream,
        }
        return await self._http.post("/v1/chat/completions", json=body)

    async def _embed(self, which: int) -> httpx2.Response:
        return await self._http.post("/v1/embeddings", json={"input": TEXTS[which]})


def answer_of(reply: httpx2.Response) -> str:
    if reply.headers["content-type"].startswith("application/json"):
        return str(reply.json()["choices"][0]["message"]["content"])
    *chunks, done = (line[6:] for line in reply.text.splitlines() if line.startswith("data: "))
    assert done == "[DONE]"
    return "".join(json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks)


def vector_of(reply: httpx2.Response) -> list[float]:
    vector: list[float] = reply.json()["data"][0]["embedding"]
    return vector


async def memory(http: httpx2.AsyncClient) -> str:
    """Resident MiB once nothing waits or runs any more."""
    while (health := await health_of(http))["queue"] != {"embedding": 0, "chat": 0}:
        await asyncio.sleep(0.1)
    models = ", ".join(f"{model['rss_bytes'] >> 20}" for model in health["models"])
    return f"{health['memory']['rss_bytes'] >> 20}, {models}"


async def health_of(http: httpx2.AsyncClient) -> dict[str, Any]:
    health: dict[str, Any] = (await http.get("/health")).json()
    return health


if __name__ == "__main__":
    asyncio.run(main())
