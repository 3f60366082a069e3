"""The process that holds the embedding model on the CPU: `python -m engine.embedding.cpu.cpu_worker`.

It knows nothing of requests, queues or texts: batches of token ids in, vectors out.
"""

import argparse
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.embedding.batch_messages import BatchDone, BatchFailed, RunBatch
from engine.embedding.cpu.embedder import CpuEmbedder
from engine.embedding.cpu.graph import derived_graph
from engine.errors import EngineError
from engine.workers.channel import Channel, inherited_channel
from engine.workers.handshake import LoadFailed, Ready

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--lanes", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    channel = inherited_channel()
    try:
        embedder = CpuEmbedder(derived_graph(arguments.folder), arguments.threads, arguments.lanes)
    except EngineError as error:
        channel.send(LoadFailed(str(error)))
        return
    channel.send(Ready())
    serve(channel, embedder, arguments.lanes)


def serve(channel: Channel, embedder: CpuEmbedder, lanes: int) -> None:
    """Run what comes, at most `lanes` batches at a time, until the gateway is gone."""
    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
        try:
            while True:
                message = channel.receive()
                assert isinstance(message, RunBatch), message
                pool.submit(_run, channel, embedder, message)
        except EOFError:
            os._exit(0)  # not waiting for a batch that nobody will read


def _run(channel: Channel, embedder: CpuEmbedder, batch: RunBatch) -> None:
    reply: BatchDone | BatchFailed
    try:
        reply = BatchDone(batch.batch_id, embedder.run(batch.token_ids))
    except Exception as error:  # whatever the runtime raises, the gateway decides what to do about it
        logger.exception("batch %d failed", batch.batch_id)
        reply = BatchFailed(batch.batch_id, f"{type(error).__name__}: {error}")
    try:
        channel.send(reply)
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main()
