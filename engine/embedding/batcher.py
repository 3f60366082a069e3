"""Joins the texts that wait into batches, and gives each batch to the device that finishes it first.

Three rules:

1. A batch is formed when a device is free, from what gathered while it was busy. There is no delay timer: an
   idle device starts at once, and batches grow only under load.
2. Requests take turns. Each batch starts with the longest waiting text of the next request in the rotation
   and is filled with the texts nearest to it in length, whichever request they belong to: little padding,
   and a single text waits for at most the batches that are running, not for the 2,048 texts before it.
3. A free device declines a batch that another one, with all that waits before it, would finish earlier. So a
   large request ends up split over the devices exactly where that is faster.

The texts of a caller who has left are taken out of the line.
"""

import asyncio
import bisect
import contextlib
import itertools
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from engine.embedding.devices.costs import bucket
from engine.embedding.devices.device import EmbeddingDevice
from engine.errors import EngineError, ModelNotReady, Overloaded
from engine.types import Device

logger = logging.getLogger(__name__)

BATCH_TOKENS = 512
"""Padded tokens per batch. 512 to 1,024 measured alike on x86-64; larger ones leave the cache."""

WASTED_TOKENS = 16
"""Padding that joining one more text may add: about what starting another batch costs (1 ms)."""

MAX_WAITING_TEXTS = 32_768
"""Sixteen requests of the largest size."""

MAX_ATTEMPTS = 3
"""The later ones alone: a text that crashes the worker by itself is told from those that were beside it."""


@dataclass(eq=False)
class Request:
    """waiting: its texts in line, shortest first; those that are `taken` no longer count."""

    done: asyncio.Future[None]
    vectors: list[NDArray[np.float32] | None]
    devices: list[Device | None]
    missing: int
    waiting: list["Text"] = field(default_factory=list)


@dataclass(eq=False)
class Text:
    request: Request
    index: int
    token_ids: NDArray[np.int32]
    order: tuple[int, int]
    """Its length, then the order of arrival."""
    arrived_at: float
    taken: bool = False
    attempts: int = 0

    @property
    def length(self) -> int:
        return len(self.token_ids)


@dataclass
class DeviceShare:
    """What one device has done with batches of one bucket. The two times tell how well the costs predict."""

    batches: int = 0
    texts: int = 0
    tokens: int = 0
    failed_batches: int = 0
    expected_seconds: float = 0.0
    actual_seconds: float = 0.0
    queue_seconds: float = 0.0


def _fail(batch: Sequence[Text], error: Exception) -> None:
    for text in batch:
        if not text.request.done.done():
            text.request.done.set_exception(error)


_by_order = attrgetter("order")
_by_length = attrgetter("length")


class Batcher:
    """In `async with batcher.running():` each lane of each device has a task that takes batches.

    forced: texts go to this device as long as it can take them, whatever the costs say.
    chat_active: whether a chat is being decoded on the CPU at the moment.
    """

    def __init__(
        self,
        devices: Sequence[EmbeddingDevice],
        *,
        forced: Device | None = None,
        chat_active: Callable[[], bool] = lambda: False,
    ) -> None:
        self._devices = devices
        self._forced = forced
        self._chat_active = chat_active
        self._open: set[Request] = set()
        self._line: list[Text] = []
        self._rotation: deque[Request] = deque()
        self._waiting: Counter[int] = Counter()
        self._arrivals = itertools.count()
        self._lanes = [(device, asyncio.Event()) for device in devices for _ in range(device.lanes)]
        self.shares: defaultdict[tuple[Device, int], DeviceShare] = defaultdict(DeviceShare)

    @property
    def waiting(self) -> int:
        return len(self._line)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        tasks = [
            asyncio.create_task(self._serve(device, wake), name=f"lane of {device.worker.name}")
            for device, wake in self._lanes
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for request in self._open:
                if not request.done.done():
                    request.done.set_exception(
                        ModelNotReady("The model was taken out of memory.", retry_after_seconds=1)
                    )

    def wake(self) -> None:
        """Something has changed: every free lane looks again whether there is a batch for it."""
        for _, wake in self._lanes:
            wake.set()

    async def embed(self, token_ids: Sequence[NDArray[np.int32]]) -> list[tuple[NDArray[np.float32], Device]]:
        """Per text, in the order given, its vector float32 [dimensions] and the device that computed it.

        Raises Overloaded at once when too many texts wait, and what the CPU raised the last time that a text
        failed there.
        """
        if self.waiting and self.waiting + len(token_ids) > MAX_WAITING_TEXTS:
            raise Overloaded(f"{self.waiting} texts wait to be embedded already.", retry_after_seconds=5)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        count, now = len(token_ids), time.perf_counter()
        request = Request(done, vectors=[None] * count, devices=[None] * count, missing=count)
        self._enqueue(
            request,
            [Text(request, n, ids, (len(ids), next(self._arrivals)), now) for n, ids in enumerate(token_ids)],
        )
        self._open.add(request)
        try:
            await done
        finally:
            done.cancel()
            self._open.discard(request)
            self._drop(request)
        return [
            (vector, device)
            for vector, device in zip(request.vectors, request.devices, strict=True)
            if vector is not None and device is not None
        ]

    def next_batch(self, device: EmbeddingDevice) -> list[Text]:
        """Texts that are neighbours in length; empty when nothing waits that this device should take."""
        first = self._next_in_turn(device.longest())
        if first is None:
            return []
        low = bisect.bisect_left(self._line, first.order, key=_by_order)
        low, high = (low, low + 1) if first.attempts else self._grow(low, low + 1, device.longest())
        batch = self._line[low:high]
        if not self._should_take(device, batch):
            return []
        del self._line[low:high]
        for text in batch:
            text.taken = True
            self._waiting[bucket(text.length)] -= 1
        return batch

    async def _serve(self, device: EmbeddingDevice, wake: asyncio.Event) -> None:
        while True:
            while batch := self.next_batch(device):
                try:
                    await self._run(device, batch)
                except Exception as error:
                    logger.exception("a bug failed a batch of %d texts; the lane goes on", len(batch))
                    _fail(batch, error)
            self._refuse_if_hopeless()
            await wake.wait()
            wake.clear()

    async def _run(self, device: EmbeddingDevice, batch: Sequence[Text]) -> None:
        lengths = [text.length for text in batch]
        expected = (
            device.costs.batch_seconds(lengths, chat_active=self._chat_active()) if device.costs else 0.0
        )
        started = time.perf_counter()
        try:
            vectors = await device.run([text.token_ids for text in batch], expected)
        except EngineError as error:
            self._failed(device, batch, error)
            return
        self._account(device, batch, expected, started)
        for text, vector in zip(batch, vectors, strict=True):
            request = text.request
            request.vectors[text.index] = vector
            request.devices[text.index] = device.device
            request.missing -= 1
            if not request.missing and not request.done.done():
                request.done.set_result(None)

    def _account(
        self, device: EmbeddingDevice, batch: Sequence[Text], expected: float, started: float
    ) -> None:
        actual = time.perf_counter() - started
        lengths = [text.length for text in batch]
        share = self.shares[device.device, bucket(max(lengths))]
        share.batches += 1
        share.texts += len(lengths)
        share.tokens += sum(lengths)
        share.expected_seconds += expected
        share.actual_seconds += actual
        share.queue_seconds += sum(started - text.arrived_at for text in batch)
        if device.costs:
            device.costs.learn(expected, actual, chat_active=self._chat_active())
        logger.debug(
            "%s ran %d texts of up to %d tokens in %.1f ms, expected %.1f ms",
            device.device, len(lengths), max(lengths), actual * 1e3, expected * 1e3,
        )  # fmt: skip

    def _failed(self, device: EmbeddingDevice, batch: Sequence[Text], error: EngineError) -> None:
        """Each text gets another try, by itself. One that still fails on the CPU fails its request. The NPU's
        failures don't count: after the first one it takes no texts for some minutes.
        """
        logger.warning("a batch of %d texts failed: %s", len(batch), error)
        self.shares[device.device, bucket(batch[-1].length)].failed_batches += 1
        for text in batch:
            text.attempts += device.device == "cpu"
            if text.request.done.done():
                continue
            if text.attempts < MAX_ATTEMPTS:
                text.taken = False
                with contextlib.suppress(ValueError):  # it has left its request's list or not, by its length
                    text.request.waiting.remove(text)
                self._enqueue(text.request, [text])
            else:
                _fail([text], error)

    def _enqueue(self, request: Request, texts: Sequence[Text]) -> None:
        for text in texts:
            bisect.insort(request.waiting, text, key=_by_order)
            bisect.insort(self._line, text, key=_by_order)
            self._waiting[bucket(text.length)] += 1
        if request not in self._rotation:
            self._rotation.append(request)
        self.wake()

    def _drop(self, request: Request) -> None:
        """Take what is left of a request out of the line: its caller has left, or one of its texts failed."""
        left = [text for text in request.waiting if not text.taken]
        if left:
            self._line = [text for text in self._line if text.request is not request]
            self._waiting -= Counter(bucket(text.length) for text in left)
        request.waiting.clear()

    def _next_in_turn(self, longest: int) -> Text | None:
        """The longest waiting text, of those that fit, of the next request that has one."""
        for _ in range(len(self._rotation)):
            request = self._rotation.popleft()
            while request.waiting and request.waiting[-1].taken:
                request.waiting.pop()
            if not request.waiting:
                continue
            self._rotation.append(request)
            fitting = bisect.bisect_right(request.waiting, longest, key=_by_length)
            for text in reversed(request.waiting[:fitting]):
                if not text.taken:
                    return text
        return None

    def _grow(self, low: int, high: int, limit: int) -> tuple[int, int]:
        """Widen [low, high) by neighbours in length while little is wasted and the batch fits the budget."""
        line = self._line
        while True:
            count, longest = high - low, line[high - 1].length
            room = (count + 1) * longest <= BATCH_TOKENS
            alone = low and line[low - 1].attempts
            if low and not alone and room and longest - line[low - 1].length <= WASTED_TOKENS:
                low -= 1
                continue
            usable = high < len(line) and not line[high].attempts
            longer = line[high].length if usable else limit + 1
            room = (count + 1) * longer <= BATCH_TOKENS
            if longer <= limit and room and count * (longer - longest) <= WASTED_TOKENS:
                high += 1
                continue
            return low, high

    def _should_take(self, device: EmbeddingDevice, batch: Sequence[Text]) -> bool:
        longest = batch[-1].length
        others = [other for other in self._devices if other is not device and other.longest() >= longest]
        if not others:
            return True
        if self._forced:
            return device.device == self._forced
        lengths = [text.length for text in batch]
        active = self._chat_active()
        assert device.costs is not None, "a device without costs takes no texts beside another"
        here = device.costs.batch_seconds(lengths, chat_active=active)
        there = min(self._finished_in(other, lengths, active) for other in others)
        if here > there:  # should that prove wrong, look again
            asyncio.get_running_loop().call_later(there, self.wake)
        return here <= there

    def _finished_in(self, device: EmbeddingDevice, lengths: Sequence[int], chat_active: bool) -> float:
        """Expected time until this device would have run all that waits, the batch in question included."""
        assert device.costs is not None, "a device without costs takes no texts beside another"
        backlog = device.costs.backlog_seconds(self._waiting, chat_active=chat_active)
        alone = device.costs.batch_seconds(lengths, chat_active=chat_active)
        return device.busy_seconds() + max(backlog / device.lanes, alone)

    def _refuse_if_hopeless(self) -> None:
        """No device will take what waits for some time: say so instead of letting it wait."""
        if self._line and all(device.hopeless() for device in self._devices):
            for request in {text.request for text in self._line}:
                if not request.done.done():
                    request.done.set_exception(self._devices[0].unavailable())
