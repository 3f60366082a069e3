"""The process that holds the embedding model on the CPU: `python -m engine.embedding.cpu.cpu_worker`.

It knows nothing of requests, queues or texts: batches of token ids in, vectors out.
"""

import logging
import os
from concurrent.futures import ThreadPoolExecutor

from engine.embedding.batch_messages import BatchDone, BatchFailed, CpuOptions, RunBatch
from engine.embedding.cpu.embedder import CpuEmbedder
from engine.embedding.cpu.graph import derived_graph
from engine.models.store import refuse_damaged
from engine.workers.channel import Channel
from engine.workers.child import begun
from engine.workers.handshake import Ping, Pong, Ready

logger = logging.getLogger(__name__)


def main() -> None:
    with begun(CpuOptions) as (channel, options):
        refuse_damaged(options.folder)
        embedder = CpuEmbedder(derived_graph(options.folder), options.threads, options.lanes)
        channel.send(Ready())
        serve(channel, embedder, options.lanes)


def serve(channel: Channel, embedder: CpuEmbedder, lanes: int) -> None:
    """Run what comes, at most `lanes` batches at a time, until the gateway is gone."""
    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
        try:
            while True:
                match channel.receive():
                    case Ping():
                        channel.send(Pong())
                    case RunBatch() as batch:
                        pool.submit(_run, channel, embedder, batch)
                    case message:
                        raise AssertionError(f"unexpected from the gateway: {message!r}")
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
