"""An NPU worker with a fault on order, named by the environment variable FAULT; its vectors are all alike.

`fails`, `hangs`, `crashes`: on every run until the file named by HEALED exists. `absent`: there is no NPU.
"""

import os
import threading
from pathlib import Path

import numpy as np

from engine.embedding.batch_messages import BatchDone, BatchFailed, NpuBuckets, NpuReady, RunBatch
from engine.types import NpuStatus
from engine.workers.channel import inherited_channel
from engine.workers.handshake import Ping, Pong, assigned

VECTOR = np.eye(1, 384, dtype=np.float32)


def main() -> None:
    channel = inherited_channel()
    assigned(channel, os.getpid())
    fault = os.environ["FAULT"]
    healed = Path(os.environ["HEALED"])
    if fault == "absent":
        channel.send(NpuReady(NpuStatus(False, False, None, "there is none"), identity=""))
        return
    channel.send(NpuReady(NpuStatus(True, False, "made-up NPU", None), identity="made-up"))
    channel.send(NpuBuckets((32, 64, 128, 256, 512), {}, preparing=False))
    while True:
        try:
            message = channel.receive()
        except EOFError:
            os._exit(0)
        if isinstance(message, Ping):
            channel.send(Pong())
            continue
        batch = message
        assert isinstance(batch, RunBatch)
        if healed.exists():
            channel.send(BatchDone(batch.batch_id, np.repeat(VECTOR, len(batch.token_ids), axis=0)))
        elif fault == "fails":
            channel.send(BatchFailed(batch.batch_id, "error 5005"))
        elif fault == "hangs":
            threading.Event().wait()
        else:
            os._exit(11)


main()
