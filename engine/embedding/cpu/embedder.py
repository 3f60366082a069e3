"""Runs batches of token ids through the CPU graph; lives in the embedding worker."""

import os
from collections.abc import Sequence
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read by onnxruntime at its import

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

SLOWER_FUSIONS = ["BiasGeluFusion", "SkipLayerNormFusion"]
"""Their fused kernels are scalar loops, 2 and 5 times slower than the parts (onnxruntime 1.32, AVX-512)."""


class CpuEmbedder:
    """Vectors of tokenised texts. Several threads may call `run` at the same time."""

    def __init__(self, graph: Path, threads: int, lanes: int) -> None:
        """threads: cores to use in all. lanes: how many calls of `run` share them."""
        options = ort.SessionOptions()
        # Each caller works too, so the pool they share is smaller by the other callers.
        options.intra_op_num_threads = max(threads - lanes + 1, 1)
        # Spinning threads take the cores that other lanes and the chat model need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Batches differ in shape; a plan per shape would be kept for each of them.
        options.enable_mem_pattern = False
        # x86-64 without VNNI overflows in products of full-range int8: use the slower exact kernel there.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = ort.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSIONS
        )

    def run(self, batch: Sequence[ArrayLike]) -> NDArray[np.float32]:
        """One unit vector per text, [texts, dimensions]. Texts alike in length need the least padding."""
        assert batch, "an empty batch has no vectors"
        texts = [np.asarray(ids, dtype=np.int32) for ids in batch]
        lengths = np.array([text.size for text in texts], dtype=np.int32)
        input_ids = np.zeros((len(texts), lengths.max()), dtype=np.int32)
        for row, text in zip(input_ids, texts, strict=True):
            row[: text.size] = text
        (vectors,) = self._session.run(["vectors"], {"input_ids": input_ids, "lengths": lengths})
        return np.asarray(vectors, dtype=np.float32)
