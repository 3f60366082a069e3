"""What the HTTP shim costs: embeddings over HTTP against the engine called directly, in one run, by turns.

    npu-gateway serve &
    python -m benchmarks.shim [--url URL] [--callers 64] [--rounds 5]

This process runs an engine of its own for the direct calls, and loads the gateway with bare sockets and
requests made beforehand: on a machine of two cores every cycle of the load is taken from the gateway. Every
text is new, so that no cache of vectors answers. Vectors are asked for in base64, as OpenAI's clients do.
"""

import asyncio
import json
import os
import statistics
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.support.arguments import parser
from engine.engine import Engine
from engine.settings import Settings
from engine.types import EmbedRequest

MODEL = "bge-small-en-v1.5"
Call = Callable[[tuple[str, ...]], Awaitable[None]]


async def main() -> None:
    options = parser("shim", __doc__)
    options.add_argument("--url", default="http://127.0.0.1:8000")
    options.add_argument("--callers", type=int, default=64)
    options.add_argument("--requests", type=int, default=20, help="of each caller, in each round")
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    async with AsyncExitStack() as open_:
        engine = await open_.enter_async_context(Engine.start(Settings.load()))
        while engine.preparing():
            await asyncio.sleep(0.1)
        connections = [
            await open_.enter_async_context(connected(arguments.url)) for _ in range(arguments.callers)
        ]
        shim = [connection.embed for connection in connections]

        async def direct(texts: tuple[str, ...]) -> None:
            await engine.embed(EmbedRequest(texts, MODEL))

        print(f"{'':32}{'engine':>14}{'shim':>14}")
        for texts in (1, 8):
            rates = await by_turns(
                arguments.rounds, [direct] * arguments.callers, shim, arguments.requests, texts
            )
            name = f"{arguments.callers} callers, {texts} text{'s'[: texts - 1]} each"
            one, other = (statistics.median(r.texts_per_second for r in side) for side in rates)
            print(f"{name:32}{one:>8.0f} /s   {other:>8.0f} /s   {other / one:.0%}")
        alone = await by_turns(arguments.rounds, [direct], shim[:1], 200, 1)
        one, other = (statistics.median(s for r in side for s in r.seconds) * 1e3 for side in alone)
        print(f"{'1 caller, 1 text, p50':32}{one:>8.2f} ms   {other:>8.2f} ms   {other - one:+.2f} ms")


@dataclass(frozen=True)
class Round:
    """seconds: of each request."""

    seconds: list[float]
    texts_per_second: float


async def by_turns(
    rounds: int, engine: Sequence[Call], shim: Sequence[Call], requests: int, texts: int
) -> tuple[list[Round], list[Round]]:
    """Of each side; what else the machine does meets both."""
    sides: tuple[list[Round], list[Round]] = ([], [])
    for _ in range(rounds):
        for callers, side in zip((engine, shim), sides, strict=True):
            side.append(await timed(callers, requests, texts))
    return sides


async def timed(callers: Sequence[Call], requests: int, texts: int) -> Round:
    seconds: list[float] = []

    async def repeat(call: Call) -> None:
        for asked in short_texts(requests, texts):
            began = time.perf_counter()
            await call(asked)
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(repeat, callers))
    return Round(seconds, len(seconds) * texts / (time.perf_counter() - began))


def short_texts(requests: int, texts: int) -> Iterator[tuple[str, ...]]:
    for _ in range(requests):
        yield tuple(f"a short text, number {uuid.uuid4().int % 10**8}" for _ in range(texts))


class Connection:
    """HTTP/1.1 with keep-alive, and just enough of it."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token = os.environ.get("NPU_GATEWAY_TOKEN", "unused")
        self._head = (
            f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._reader = reader
        self._writer = writer

    async def embed(self, texts: tuple[str, ...]) -> None:
        body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"})
        self._writer.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200 "), head
        _, _, length = head.partition(b"content-length: ")
        await self._reader.readexactly(int(length.partition(b"\r\n")[0]))


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Connection]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Connection(address.netloc, reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
