"""Llama, and the models that share its architecture (SmolLM2 is one)."""

from typing import ClassVar

import numpy as np

from engine.models.decoders.weights import GgufWeights
from engine.models.gguf.reader import FloatArray


class LlamaWeights(GgufWeights):
    layered: ClassVar[dict[str, list[str]]] = GgufWeights.layered | {
        "qkv": ["attn_q", "attn_k", "attn_v"],
        "gate": ["ffn_gate"],
        "up": ["ffn_up"],
    }

    def combine(self, part: str, *tensors: FloatArray) -> FloatArray:
        if part != "qkv":
            return super().combine(part, *tensors)
        queries, keys, values = tensors
        return np.concatenate([self._half_rotated(queries), self._half_rotated(keys), values])

    def _half_rotated(self, rows: FloatArray) -> FloatArray:
        """llama.cpp keeps the two elements of each rotated pair side by side; undo that
        (`permute` in https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py)."""
        pairs = rows.reshape(-1, self.decoder.head_size // 2, 2, rows.shape[-1])
        return pairs.swapaxes(1, 2).reshape(rows.shape)
