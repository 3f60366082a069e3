"""The process that holds the embedding model on the CPU: `python -m engine.embedding.cpu.cpu_worker`.

It knows nothing of requests, queues or texts: batches of token ids in, vectors out.
"""

from engine.embedding.batch_messages import CpuOptions
from engine.embedding.batch_server import serve
from engine.embedding.cpu.embedder import CpuEmbedder
from engine.embedding.cpu.graph import derived_graph
from engine.models.store import refuse_damaged
from engine.workers.child import begun
from engine.workers.handshake import Ready


def main() -> None:
    with begun(CpuOptions) as (channel, options):
        refuse_damaged(options.folder)
        embedder = CpuEmbedder(derived_graph(options.folder), options.threads, options.lanes)
        channel.send(Ready())
        serve(channel, lambda batch: embedder.run(batch.token_ids), options.lanes)


if __name__ == "__main__":
    main()
