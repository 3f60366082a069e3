"""Joins the texts that wait into batches for the devices.

Two rules:

1. A batch is formed when a device is free, from what gathered while it was busy. There is no delay timer: an
   idle device starts at once, and batches grow only under load.
2. Requests take turns. Each batch starts with the longest waiting text of the next request in the rotation
   and is filled with the texts nearest to it in length, whichever request they belong to: little padding,
   and a single text waits for at most the batches that are running, not for the 2,048 texts before it.

The texts of a caller who has left are taken out of the line.
"""

import asyncio
import bisect
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from engine.embedding.device import EmbeddingDevice
from engine.errors import EngineError, Overloaded
from engine.types import Device
from engine.workers.supervisor import WorkerFailed

logger = logging.getLogger(__name__)

BATCH_TOKENS = 1024
"""Padded tokens per batch. 512 to 1,024 measured best on x86-64: larger ones leave the cache."""

MAX_WAITING_TEXTS = 32_768
"""Sixteen requests of the largest size."""

MAX_ATTEMPTS = 2


@dataclass(eq=False)
class Request:
    """waiting: its texts in line, shortest first; those that are `taken` no longer count."""

    done: asyncio.Future[None]
    vectors: list[NDArray[np.float32] | None]
    missing: int
    waiting: list["Text"] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)


@dataclass(eq=False)
class Text:
    request: Request
    index: int
    token_ids: tuple[int, ...]
    order: tuple[int, int]
    """Its length, then the order of arrival."""
    taken: bool = False
    attempts: int = 0

    @property
    def length(self) -> int:
        return len(self.token_ids)


_by_order = attrgetter("order")


class Batcher:
    """In `async with batcher.running():` each lane of each device has a task that takes batches."""

    def __init__(self, devices: Sequence[EmbeddingDevice]) -> None:
        self._devices = devices
        self._line: list[Text] = []
        self._rotation: deque[Request] = deque()
        self._arrivals = itertools.count()
        self._work = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._line)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        lanes = [
            asyncio.create_task(self._serve(device), name=f"lane {n} of {device.worker.name}")
            for device in self._devices
            for n in range(device.lanes)
        ]
        try:
            yield
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def embed(
        self, token_ids: Sequence[tuple[int, ...]]
    ) -> tuple[NDArray[np.float32], tuple[Device, ...]]:
        """Vectors float32 [texts, dimensions] in the order given, and the devices that computed them.

        Raises Overloaded at once when too many texts wait, and what the device raised the second time
        that a batch failed.
        """
        if self.waiting and self.waiting + len(token_ids) > MAX_WAITING_TEXTS:
            raise Overloaded(f"{self.waiting} texts wait to be embedded already.", retry_after_seconds=5)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = Request(done, vectors=[None] * len(token_ids), missing=len(token_ids))
        self._enqueue(
            request,
            [Text(request, n, ids, (len(ids), next(self._arrivals))) for n, ids in enumerate(token_ids)],
        )
        try:
            await done
        finally:
            done.cancel()
            if not all(text.taken for text in request.waiting):  # the caller left, or a batch failed
                self._line = [text for text in self._line if text.request is not request]
        return np.stack([vector for vector in request.vectors if vector is not None]), tuple(request.devices)

    def next_batch(self) -> list[Text]:
        """Texts that are neighbours in length; empty when nobody waits."""
        first = self._next_in_turn()
        if first is None:
            self._work.clear()
            return []
        low = bisect.bisect_left(self._line, first.order, key=_by_order)
        low, high = self._grow(low, low + 1, first.length)
        batch = self._line[low:high]
        del self._line[low:high]
        for text in batch:
            text.taken = True
        return batch

    async def _serve(self, device: EmbeddingDevice) -> None:
        while True:
            await self._work.wait()
            try:
                await device.worker.ready()
            except WorkerFailed as error:
                self._give_up(error)
                return
            if batch := self.next_batch():
                await self._run(device, batch)

    def _give_up(self, error: WorkerFailed) -> None:
        """The last device has failed: nobody who waits would ever be served."""
        if all(device.worker.state == "failed" for device in self._devices):
            for text in self._line:
                if not text.request.done.done():
                    text.request.done.set_exception(error)

    async def _run(self, device: EmbeddingDevice, batch: Sequence[Text]) -> None:
        try:
            vectors = await device.run([text.token_ids for text in batch])
        except EngineError as error:
            self._failed(batch, error)
            return
        for text, vector in zip(batch, vectors, strict=True):
            request = text.request
            request.vectors[text.index] = vector
            request.missing -= 1
            if device.device not in request.devices:
                request.devices.append(device.device)
            if not request.missing and not request.done.done():
                request.done.set_result(None)

    def _failed(self, batch: Sequence[Text], error: EngineError) -> None:
        """Each text gets a second try; a text that fails twice fails its request."""
        logger.warning("a batch of %d texts failed: %s", len(batch), error)
        for text in batch:
            text.attempts += 1
            if text.request.done.done():
                continue
            if text.attempts < MAX_ATTEMPTS:
                text.taken = False
                self._enqueue(text.request, [text])
            else:
                text.request.done.set_exception(error)

    def _enqueue(self, request: Request, texts: Sequence[Text]) -> None:
        for text in texts:
            bisect.insort(request.waiting, text, key=_by_order)
            bisect.insort(self._line, text, key=_by_order)
        if request not in self._rotation:
            self._rotation.append(request)
        self._work.set()

    def _next_in_turn(self) -> Text | None:
        """The longest waiting text of the next request that still has one and whose caller still waits."""
        while self._rotation:
            request = self._rotation.popleft()
            while request.waiting and request.waiting[-1].taken:
                request.waiting.pop()
            if request.waiting and not request.done.done():
                self._rotation.append(request)
                return request.waiting[-1]
        return None

    def _grow(self, low: int, high: int, first_length: int) -> tuple[int, int]:
        """Widen [low, high) by the neighbour nearest in length while the padded batch stays in the budget."""
        line = self._line
        while True:
            count, longest = high - low + 1, line[high - 1].length
            longer = line[high].length if high < len(line) else None
            shorter = line[low - 1].length if low else None
            take_longer = longer is not None and count * longer <= BATCH_TOKENS
            take_shorter = shorter is not None and count * longest <= BATCH_TOKENS
            if take_longer and take_shorter:
                take_longer = longer - first_length <= first_length - shorter  # type: ignore[operator]
            if take_longer:
                high += 1
            elif take_shorter:
                low -= 1
            else:
                return low, high
