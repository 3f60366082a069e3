"""The process in which the gateway fetches a model: `python -m engine.models.pull_worker`.

A process and not a thread, so that stopping the gateway stops the download, which resumes the next time.
"""

import os
import threading

import psutil

from engine.models.progress import PullOptions, PullProgress
from engine.models.pull import pull
from engine.models.registry import find
from engine.models.store import ModelStore
from engine.workers.channel import Channel
from engine.workers.child import begun
from engine.workers.handshake import Ready


def main() -> None:
    with begun(PullOptions) as (channel, options):
        threading.Thread(target=_end_with_the_gateway, args=(channel,), daemon=True).start()

        def report(doing: str, done_bytes: int, total_bytes: int | None) -> None:
            channel.send(PullProgress(doing, done_bytes, total_bytes))

        pull(ModelStore(options.models), find(options.model_id), progress=report)
        channel.send(Ready())


def _end_with_the_gateway(channel: Channel) -> None:
    try:
        channel.receive()
    except EOFError:
        for child in psutil.Process().children(recursive=True):  # pip
            child.kill()
        os._exit(1)


if __name__ == "__main__":
    main()
