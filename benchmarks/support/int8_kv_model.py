"""Writes variants of a chat model whose key-value cache is int8, with scales calibrated on text.

GroupQueryAttention of onnxruntime 1.32 quantises keys and values when it writes them, by constant scales, and
multiplies with the quantised cache. For models written by `engine.models.gguf`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read by onnxruntime at its import

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.models.decoders.graph import MODEL_FILE

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]

ALL_LOGITS_FILE = f"all_logits.{MODEL_FILE}"
SLICE = 64
"""Tokens read at a time, as by the gateway."""


@dataclass(frozen=True)
class Scheme:
    """How the scales of a cache are chosen.

    quant_type: the operator's name for one scale per tensor, or per head and channel.
    texts, tokens: what is read for calibration. Half of the texts are prose, half source code.
    rotary: give the two channels of a rotary pair the largest length of the pair, which is the same at every
    position, instead of what was seen at the positions that were read.
    margin: times the largest magnitude seen.
    """

    quant_type: str
    texts: int
    tokens: int
    rotary: bool = False
    margin: float = 1.0

    @property
    def name(self) -> str:
        pairs = ", rotary pairs" if self.rotary else ""
        margin = f" x {self.margin}" if self.margin > 1 else ""
        kind = self.quant_type.lower().replace("_", " ")
        return f"int8 {kind}{pairs}{margin}; {self.texts} x {self.tokens} tokens"


# The variants of the model.


def write_variant(
    source: Path, target: Path, scales: Mapping[str, Floats] | None, quant_type: str = "NONE"
) -> Path:
    """The model with an int8 cache; without scales, with its float32 one. Also a graph with all logits.

    scales: of each present tensor.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file():  # a symbolic link to the weights is refused by the runtime
            (target / file.name).unlink(missing_ok=True)
            os.link(file, target / file.name)
    model = onnx.load(source / MODEL_FILE, load_external_data=False)
    if scales:
        _quantise_cache(model.graph, scales, quant_type)
    (target / MODEL_FILE).unlink()
    onnx.save(model, target / MODEL_FILE)
    _keep_every_position(model.graph)
    onnx.save(model, target / ALL_LOGITS_FILE)
    return target


def _quantise_cache(graph: onnx.GraphProto, scales: Mapping[str, Floats], quant_type: str) -> None:
    """As onnxruntime-genai's builder does for kv_cache_quant_scheme; the scales are inputs 12 and 13."""
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            node.input.extend([""] * (12 - len(node.input)))
            for part, present in zip("kv", node.output[1:3], strict=True):
                graph.initializer.append(numpy_helper.from_array(scales[present], f"{present}.scale"))
                node.input.append(f"{present}.scale")
                node.attribute.append(helper.make_attribute(f"{part}_quant_type", quant_type))
            node.attribute.append(helper.make_attribute("kv_cache_bit_width", 8))
    for value in [*graph.input, *graph.output]:
        if value.name.startswith(("past_key_values.", "present.")):
            value.type.tensor_type.elem_type = TensorProto.INT8


def _keep_every_position(graph: onnx.GraphProto) -> None:
    """Undo the pruning of the head to the last token, which large models do not have."""
    nodes = {node.name: node for node in graph.node}
    if "/lm_head/prune/Gather" not in nodes:
        return
    gather, unsqueeze = nodes["/lm_head/prune/Gather"], nodes["/lm_head/prune/Unsqueeze"]
    for node in graph.node:
        node.input[:] = [gather.input[0] if name == unsqueeze.output[0] else name for name in node.input]
    graph.node.remove(gather)
    graph.node.remove(unsqueeze)
    next(o for o in graph.output if o.name == "logits").type.tensor_type.shape.dim[1].dim_param = "sequence"


# Calibration.


class Reader:
    """Reads one text through a plain session and keeps its cache by the names of the present tensors."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._read = 0
        types = {"tensor(float)": np.float32, "tensor(int8)": np.int8}
        past = [value for value in session.get_inputs() if value.name.startswith("past_key_values")]
        self.cache: dict[str, Any] = {
            value.name.replace("past_key_values", "present"): np.zeros(
                (1, value.shape[1], 0, value.shape[3]), types[value.type]
            )
            for value in past
        }

    def read(self, tokens: Tokens) -> Floats:
        """Logits [tokens, vocabulary] of what follows each token, or [1, vocabulary] from a pruned head."""
        self._read += len(tokens)
        feeds = {"input_ids": tokens[None], "attention_mask": np.ones((1, self._read), np.int64)}
        past = {name.replace("present", "past_key_values"): cache for name, cache in self.cache.items()}
        results = self._session.run(self._outputs, {**feeds, **past})
        self.cache = dict(zip(self._outputs, results, strict=True))
        logits: Floats = self.cache.pop("logits")[0]
        return logits


def calibrate(folder: Path, texts: Sequence[Tokens], scheme: Scheme) -> dict[str, Floats]:
    """float32 [kv_heads * head_size], or [1] per tensor, of each present tensor."""
    session = open_session(folder / MODEL_FILE)
    largest: dict[str, Floats] = {}
    for text in texts[: scheme.texts]:
        reader = Reader(session)
        for piece in slices(text[: scheme.tokens]):
            reader.read(piece)
        for name, cache in reader.cache.items():
            magnitudes = _magnitudes(cache[0], rotary=scheme.rotary and name.endswith("key")).max(axis=1)
            largest[name] = np.maximum(largest.get(name, np.float32(1e-6)), magnitudes)
    if scheme.quant_type == "PER_TENSOR":
        largest = {name: magnitudes.max(keepdims=True) for name, magnitudes in largest.items()}
    return {name: m.reshape(-1) * np.float32(scheme.margin / 127) for name, m in largest.items()}


def _magnitudes(cache: Floats, *, rotary: bool) -> Floats:
    """[kv_heads, tokens, head_size]. The rotation pairs channel i with channel i + head_size / 2."""
    if not rotary:
        return np.abs(cache)
    first, second = np.split(cache, 2, axis=2)
    lengths = np.hypot(first, second)
    return np.concatenate([lengths, lengths], axis=2)


def open_session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # warns of the two constants that only the pruned head needs
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def slices(tokens: Tokens) -> Iterator[Tokens]:
    for start in range(0, len(tokens), SLICE):
        yield tokens[start : start + SLICE]
