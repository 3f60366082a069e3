"""The process in which the gateway fetches a model: `python -m engine.models.pull_worker FOLDER ID`.

A process and not a thread, so that stopping the gateway stops the download, which resumes the next time.
"""

import logging
import os
import sys
import threading
from pathlib import Path

import psutil

from engine.errors import EngineError
from engine.models.progress import PullProgress
from engine.models.pull import pull
from engine.models.registry import find
from engine.models.store import ModelStore
from engine.workers.channel import Channel, inherited_channel
from engine.workers.handshake import LoadFailed, Ready


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder, model_id = sys.argv[1:]
    channel = inherited_channel()
    threading.Thread(target=_end_with_the_gateway, args=(channel,), daemon=True).start()

    def report(doing: str, done_bytes: int, total_bytes: int | None) -> None:
        channel.send(PullProgress(doing, done_bytes, total_bytes))

    try:
        pull(ModelStore(Path(folder)), find(model_id), progress=report)
    except EngineError as error:
        channel.send(LoadFailed(str(error)))
    else:
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
