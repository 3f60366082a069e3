"""A worker's loop: batches come, vectors go, until the gateway is gone. It is the same on every device."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from engine.embedding.batch_messages import BatchDone, BatchFailed, RunBatch
from engine.workers.channel import Channel
from engine.workers.handshake import Ping, Pong

logger = logging.getLogger(__name__)

Run = Callable[[RunBatch], NDArray[np.float32]]
"""Vectors float32 [texts, dimensions]."""


def serve(channel: Channel, run: Run, lanes: int) -> None:
    """At most `lanes` batches at a time. Ends the process when the gateway is gone."""
    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
        try:
            while True:
                match channel.receive():
                    case Ping():
                        channel.send(Pong())
                    case RunBatch() as batch:
                        pool.submit(_answer, channel, run, batch)
                    case message:
                        raise AssertionError(f"unexpected from the gateway: {message!r}")
        except EOFError:
            os._exit(0)  # not waiting for a batch that nobody will read, nor for a hanging driver


def _answer(channel: Channel, run: Run, batch: RunBatch) -> None:
    reply: BatchDone | BatchFailed
    try:
        reply = BatchDone(batch.batch_id, run(batch))
    except Exception as error:  # whatever the runtime raises, the gateway decides what to do about it
        logger.exception("batch %d failed", batch.batch_id)
        reply = BatchFailed(batch.batch_id, f"{type(error).__name__}: {error}")
    try:
        channel.send(reply)
    except OSError:
        os._exit(0)
