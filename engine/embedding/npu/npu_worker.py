"""The process that holds the embedding model on the NPU.

    python -m engine.embedding.npu.npu_worker

It looks for the NPU, prepares one bucket after the other while batches run on those that are ready, and ends
at once where there is no NPU.
"""

import logging
import os
import threading

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import of onnxruntime

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine.embedding.batch_messages import NpuBuckets, NpuOptions, NpuReady, RunBatch
from engine.embedding.batch_server import serve
from engine.embedding.npu.buckets import BUCKETS, Bucket, NpuFault
from engine.embedding.npu.contexts import ContextCache
from engine.embedding.npu.device import Npu, find_npu
from engine.embedding.npu.embedder import NpuEmbedder
from engine.embedding.npu.gain import LARGER_BUCKETS, MIN_GAIN, gain
from engine.models.store import refuse_damaged
from engine.workers.channel import Channel
from engine.workers.child import begun

logger = logging.getLogger(__name__)


def main() -> None:
    with begun(NpuOptions) as (channel, options):
        search = find_npu()
        if search.npu is None:
            channel.send(NpuReady(search.status, identity=""))
            return
        refuse_damaged(options.folder)
        embedder = NpuEmbedder(search.npu, ContextCache(options.contexts, options.folder, search.npu))
        channel.send(NpuReady(search.status, identity_of(search.npu)))
        preparation = threading.Thread(
            target=_prepare, args=(channel, embedder), kwargs={"emulated": search.npu.emulated}, daemon=True
        )
        preparation.start()
        serve(channel, lambda batch: run(embedder, batch), lanes=1)  # one batch at a time, as the device does


def identity_of(npu: Npu) -> str:
    """What measurements on this NPU depend on."""
    return f"{npu.identity}, onnxruntime {onnxruntime.__version__}"


def _prepare(channel: Channel, embedder: NpuEmbedder, *, emulated: bool) -> None:
    for bucket in BUCKETS:
        embedder.prepare(bucket)
        _report(channel, embedder, preparing=True)
    if not emulated:
        for bucket in LARGER_BUCKETS:
            prepare_if_faster(embedder, bucket)
    _report(channel, embedder, preparing=False)


def prepare_if_faster(embedder: NpuEmbedder, bucket: Bucket) -> None:
    embedder.prepare(bucket)
    if bucket not in embedder.available_buckets():
        return
    try:
        faster = gain(embedder, bucket)
    except NpuFault as fault:
        logger.warning("the %s bucket cannot be measured: %s", bucket, fault)
        faster = 0.0
    logger.info("the %s bucket runs %.2f times as fast as its texts one by one", bucket, faster)
    if faster < MIN_GAIN:
        embedder.withdraw(bucket)


def _report(channel: Channel, embedder: NpuEmbedder, *, preparing: bool) -> None:
    available = dict.fromkeys(bucket.sequence for bucket in embedder.available_buckets())
    channel.send(
        NpuBuckets(
            available=tuple(sorted(available)),
            disabled={str(bucket): reason for bucket, reason in embedder.disabled().items()},
            preparing=preparing,
        )
    )


def run(embedder: NpuEmbedder, batch: RunBatch) -> NDArray[np.float32]:
    """The ladder, as far as this process can climb it: run, run again, open the session anew and run.

    Raises NpuFault from the last step.
    """
    for _ in range(2):
        try:
            return embedder.run(batch.token_ids)
        except NpuFault as fault:
            logger.warning("the NPU failed: %s", fault)
            bucket = fault.bucket
    if bucket is not None:
        embedder.rebuild(bucket)
    return embedder.run(batch.token_ids)


if __name__ == "__main__":
    main()
