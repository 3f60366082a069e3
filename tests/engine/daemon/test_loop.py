"""The loop that servers run on; that it outlives a failed accept is shown at both front doors."""

import asyncio
import signal
import threading

from engine.daemon.loop import run_server

WAIT_SECONDS = 5


def test_a_signal_that_does_not_interrupt_the_main_thread_wakes_the_loop() -> None:
    """On Windows each comes in a thread of its own."""

    async def until_signalled() -> float:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(ended.set))
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        started = loop.time()
        try:
            await asyncio.wait_for(ended.wait(), 2 * WAIT_SECONDS)
        finally:
            signal.signal(signal.SIGINT, before)
        return loop.time() - started

    assert run_server(until_signalled()) < WAIT_SECONDS
