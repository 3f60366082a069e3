"""A real gateway that a test does harm to, and what must hold of it all the same."""

import asyncio
import base64
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from engine.daemon import ensure, find
from engine.errors import BadInput, EngineError, ModelNotFound
from engine.remote.client import GatewayClient
from engine.settings import Home
from engine.types import ChatPiece, ChatRequest, EmbedRequest, Message, Sampling
from tests.golden import GOLDEN

HEAL_SECONDS = 60.0
CALLERS = 4
ITEMS: list[dict[str, Any]] = [item for item in GOLDEN["items"] if len(item["text"]) < 400]
CAPITAL = ChatRequest(
    (Message("user", "What is the capital of France?"),), sampling=Sampling(temperature=0, max_tokens=8)
)


def expected(item: dict[str, Any]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(item["vector_f32_base64"]), np.float32)


class Harmed:
    """`async with`: several callers ask all the time, and each answer is checked.

    answers: how often what came. wrong: answers that no caller should ever see.
    """

    def __init__(self, home: Home, seed: int) -> None:
        self.home = home
        self.random = random.Random(seed)
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.client = GatewayClient(partial(ensure, home))
        self._callers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Harmed":
        await self.client.__aenter__()
        await self.heal()
        self._callers = [asyncio.create_task(self._call(n)) for n in range(CALLERS)]
        return self

    async def __aexit__(self, *error: Any) -> None:
        for caller in self._callers:
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        await self.client.__aexit__(*error)

    async def heal(self) -> float:
        """Seconds until a text and a question are answered rightly. Raises TimeoutError."""
        began = time.perf_counter()
        async with asyncio.timeout(HEAL_SECONDS):
            while not (await self._embedded() and await self._answered()):
                await asyncio.sleep(0.1)
        return time.perf_counter() - began

    async def gateways(self) -> list[psutil.Process]:
        return [process for process in self._processes() if "serve" in process.cmdline()]

    async def orphans(self) -> list[list[str]]:
        """Command lines of our processes that no gateway is above, once those that end have ended."""
        left: list[psutil.Process] = []
        for _ in range(100):
            kept = {psutil.Process().pid}
            for gateway in await self.gateways():
                kept |= {gateway.pid, *(child.pid for child in gateway.children(recursive=True))}
            left = [process for process in self._processes() if process.pid not in kept]
            if not left:
                return []
            await asyncio.sleep(0.1)
        return [process.cmdline() for process in left]

    def worker(self, module: str) -> psutil.Process | None:
        return next((process for process in self._processes() if module in process.cmdline()), None)

    async def gateway_pid(self) -> int | None:
        found = await find(self.home)
        return found.pid if found else None

    def _processes(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("NPU_GATEWAY_HOME") == str(self.home.root)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except psutil.Error:
                continue

    async def _call(self, number: int) -> None:
        while True:
            await self._embedded()
            await asyncio.sleep(0.02 * (number + 1))

    async def _embedded(self) -> bool:
        item = self.random.choice(ITEMS)
        try:
            reply = await self.client.embed(EmbedRequest((item["text"],)))
        except EngineError as error:
            self._note(error)
            return False
        cosine = float(np.array(reply.vectors[0]) @ expected(item))
        if cosine < 0.998:
            self.wrong.append(f"a vector of cosine {cosine:.3f}")
        self.answers["vector"] += 1
        return True

    async def _answered(self) -> bool:
        text = ""
        try:
            async with aclosing(self.client.chat(CAPITAL)) as events:
                async for event in events:
                    text += event.text if isinstance(event, ChatPiece) else ""
        except EngineError as error:
            self._note(error)
            return False
        if "Paris" not in text:
            self.wrong.append(f"the answer {text!r}")
        self.answers["answer"] += 1
        return True

    def _note(self, error: EngineError) -> None:
        """Everything but what blames the request may be sent again."""
        if isinstance(error, BadInput | ModelNotFound) or not str(error):
            self.wrong.append(repr(error))
        self.answers[type(error).__name__] += 1
