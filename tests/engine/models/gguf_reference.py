"""A second, independent reading of a GGUF file: plain float32 numpy, written from the model papers.

It shares no code with the importer. Rotary positions are applied in the layout in which the file stores its
rows (llama: interleaved pairs; phi3: halves), so a wrong permutation in the importer cannot cancel out here.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ReferenceModel:
    path: Path

    @cached_property
    def reader(self) -> GGUFReader:
        return GGUFReader(self.path)

    @cached_property
    def tensors(self) -> dict[str, Floats]:
        return {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in self.reader.tensors}

    def meta(self, key: str) -> Any:
        return self.reader.fields[key].contents()

    @property
    def architecture(self) -> str:
        return str(self.meta("general.architecture"))

    def hyper(self, key: str) -> Any:
        return self.meta(f"{self.architecture}.{key}")

    def logits(self, tokens: list[int]) -> Floats:
        """Next-token logits [len(tokens), vocabulary], one row per position."""
        x = self.tensors["token_embd.weight"][tokens]
        for layer in range(self.hyper("block_count")):
            block = {
                name.removeprefix(f"blk.{layer}."): tensor
                for name, tensor in self.tensors.items()
                if name.startswith(f"blk.{layer}.")
            }
            x = x + self._attention(self._rms_norm(x, block["attn_norm.weight"]), block)
            x = x + self._mlp(self._rms_norm(x, block["ffn_norm.weight"]), block)
        head = self.tensors.get("output.weight", self.tensors["token_embd.weight"])
        return self._rms_norm(x, self.tensors["output_norm.weight"]) @ head.T

    def shortfall(self, tokens: list[int], written: list[int]) -> float:
        """How far, in logits, the worst of the written tokens is behind what this model would have put there:
        0 for its own greedy continuation, next to 0 if two tokens are as good as equal."""
        logits = self.logits(tokens + written)[len(tokens) - 1 : -1]
        return float((logits.max(axis=-1) - logits[np.arange(len(written)), written]).max())

    def _attention(self, x: Floats, block: dict[str, Floats]) -> Floats:
        heads, kv_heads = self.hyper("attention.head_count"), self.hyper("attention.head_count_kv")
        size = self.hyper("embedding_length") // heads
        if self.architecture == "phi3":
            fused = x @ block["attn_qkv.weight"].T
            q, k, v = np.split(fused, [heads * size, (heads + kv_heads) * size], axis=-1)
        else:
            q, k, v = (x @ block[f"attn_{name}.weight"].T for name in "qkv")
        q = self._rotate(q.reshape(len(x), heads, size))
        k = self._rotate(k.reshape(len(x), kv_heads, size)).repeat(heads // kv_heads, axis=1)
        v = v.reshape(len(x), kv_heads, size).repeat(heads // kv_heads, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(np.float32(size))
        scores = np.where(self._visible(len(x)), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed: Floats = np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1)
        return mixed @ block["attn_output.weight"].T

    def _visible(self, length: int) -> NDArray[np.bool_]:
        """A query sees itself and what came before, at most `sliding_window` tokens in all."""
        query, key = np.arange(length)[:, None], np.arange(length)[None, :]
        visible = key <= query
        if f"{self.architecture}.attention.sliding_window" in self.reader.fields:
            visible &= query - key < self.hyper("attention.sliding_window")
        return visible

    def _rotate(self, x: Floats) -> Floats:
        size = x.shape[-1]
        frequencies = self.hyper("rope.freq_base") ** (-np.arange(0, size, 2) / size)
        angles = (np.arange(len(x))[:, None] * frequencies).astype(np.float32)[:, None, :]
        cos, sin = np.cos(angles), np.sin(angles)
        rotated = np.empty_like(x)
        halves = slice(0, size // 2), slice(size // 2, None)
        pairs = slice(0, None, 2), slice(1, None, 2)
        first, second = halves if self.architecture == "phi3" else pairs
        rotated[..., first] = x[..., first] * cos - x[..., second] * sin
        rotated[..., second] = x[..., first] * sin + x[..., second] * cos
        return rotated

    def _mlp(self, x: Floats, block: dict[str, Floats]) -> Floats:
        if self.architecture == "phi3":
            gate, up = np.split(x @ block["ffn_up.weight"].T, 2, axis=-1)
        else:
            gate, up = x @ block["ffn_gate.weight"].T, x @ block["ffn_up.weight"].T
        inner: Floats = gate / (1 + np.exp(-gate)) * up
        return inner @ block["ffn_down.weight"].T

    def _rms_norm(self, x: Floats, weight: Floats) -> Floats:
        epsilon: float = self.hyper("attention.layer_norm_rms_epsilon")
        normed: Floats = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon)
        return normed * weight
