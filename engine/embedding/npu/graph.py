"""The encoder as the NPU's compiler wants it: float32, fixed shapes, standard operators of opset 17.

One graph per bucket, that is per (batch, sequence) pair; their weights are identical. Inputs are `input_ids`
int32 [batch, sequence] and `attention_bias` float32 [batch, 1, 1, sequence]; the output is `embeddings`
float32 [batch, hidden], the normalised first token.

What differs from the exporters' graph, and why:

- Position and type embeddings are one constant of shape [batch, sequence, hidden]. HTP fuses an addition with
  the LayerNormalization behind it and forgets to broadcast the addend over the batch: with [1, sequence,
  hidden], rows after the first are silently wrong (cosine 0.66 to 0.84; QNN 2.51, measured on the emulator).
- Behind the embeddings, the tokens of all texts are the rows of one matrix, so that each linear layer is one
  Gemm, which becomes one QNN FullyConnected with its bias. A MatMul and an Add remain two operations.
- The mask comes ready to be added to the scores, with a value that float16 can hold.
- The scale of attention, 1 / sqrt(head size), is part of the query weights.
- Gelu is written with Erf as the exporters do: QNN recognises this pattern and fuses it.
- The last layer computes its first token only. Nothing else is read.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.embedding.npu.buckets import Bucket
from engine.models.encoders.bert import LAYER_NORM_EPSILON, BertLayer, BertWeights, Linear, Norm

OPSET = 17
IR_VERSION = 8
"""The one that belongs to opset 17."""

RECIPE = 1
"""Raise it with every change of what a compiled graph holds or had to pass: what `build_graph` writes, how
`load_weights` reads a model, the texts and limits of the parity gate. Every user's graphs are then made anew.
"""


def build_graph(weights: BertWeights, bucket: Bucket) -> onnx.ModelProto:
    """The encoder with its weights inside; about 130 MB for BGE small."""
    nodes = _Nodes()
    hidden = _embed(nodes, weights, bucket)
    for layer in weights.layers[:-1]:
        hidden = _encode(nodes, layer, hidden, hidden, weights.num_heads, bucket.batch)
    first = _first_tokens(nodes, hidden, bucket)
    hidden = _encode(nodes, weights.layers[-1], first, hidden, weights.num_heads, bucket.batch)
    nodes.add("LpNormalization", hidden, output="embeddings", axis=-1, p=2)
    return _model(nodes, weights, bucket)


@dataclass
class _Nodes:
    """The graph under construction. Tensors are known by their names."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)

    def add(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def shape(self, *dimensions: int) -> str:
        return self.constant(np.array(dimensions, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def linear(self, x: str, linear: Linear) -> str:
        return self.add("Gemm", x, self.constant(linear.weight), self.constant(linear.bias))

    def norm(self, x: str, norm: Norm) -> str:
        scale, bias = self.constant(norm.scale), self.constant(norm.bias)
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=LAYER_NORM_EPSILON)


def _embed(nodes: _Nodes, weights: BertWeights, bucket: Bucket) -> str:
    words = nodes.add("Gather", nodes.constant(weights.word_embeddings), "input_ids", axis=0)
    places = weights.position_embeddings[: bucket.sequence] + weights.type_embeddings[0]
    tiled = nodes.constant(np.tile(places, (bucket.batch, 1, 1)))
    embedded = nodes.norm(nodes.add("Add", words, tiled), weights.embeddings_norm)
    return nodes.add("Reshape", embedded, nodes.shape(-1, weights.hidden_size))


def _first_tokens(nodes: _Nodes, x: str, bucket: Bucket) -> str:
    """Every sequence-th row."""
    rows = bucket.batch * bucket.sequence
    return nodes.add("Slice", x, *(nodes.shape(value) for value in (0, rows, 0, bucket.sequence)))


def _encode(nodes: _Nodes, layer: BertLayer, x: str, attended: str, heads: int, batch: int) -> str:
    """x: the tokens to compute, [batch * n, hidden]. attended: those that they look at, likewise."""
    mixed = _attend(nodes, layer, x, attended, heads, batch)
    x = nodes.norm(nodes.add("Add", mixed, x), layer.attention_norm)
    inner = _gelu(nodes, nodes.linear(x, layer.intermediate))
    return nodes.norm(nodes.add("Add", nodes.linear(inner, layer.output), x), layer.output_norm)


def _attend(nodes: _Nodes, layer: BertLayer, x: str, attended: str, heads: int, batch: int) -> str:
    hidden = len(layer.query.bias)
    size = hidden // heads
    by_head = nodes.shape(batch, -1, heads, size)

    def project(source: str, linear: Linear, order: tuple[int, ...]) -> str:
        return nodes.add("Transpose", nodes.add("Reshape", nodes.linear(source, linear), by_head), perm=order)

    query = project(x, _scaled(layer.query, size**-0.5), (0, 2, 1, 3))
    key = project(attended, layer.key, (0, 2, 3, 1))
    value = project(attended, layer.value, (0, 2, 1, 3))
    scores = nodes.add("Add", nodes.add("MatMul", query, key), "attention_bias")
    mixed = nodes.add("MatMul", nodes.add("Softmax", scores, axis=-1), value)
    joined = nodes.add("Transpose", mixed, perm=(0, 2, 1, 3))
    return nodes.linear(nodes.add("Reshape", joined, nodes.shape(-1, hidden)), layer.attention_output)


def _scaled(linear: Linear, factor: float) -> Linear:
    scale = np.float32(factor)
    return replace(linear, weight=linear.weight * scale, bias=linear.bias * scale)


def _gelu(nodes: _Nodes, x: str) -> str:
    """0.5 x (1 + erf(x / sqrt 2)), https://arxiv.org/abs/1606.08415"""
    erf = nodes.add("Erf", nodes.add("Div", x, nodes.scalar(2**0.5)))
    doubled = nodes.add("Mul", x, nodes.add("Add", erf, nodes.scalar(1)))
    return nodes.add("Mul", doubled, nodes.scalar(0.5))


def _model(nodes: _Nodes, weights: BertWeights, bucket: Bucket) -> onnx.ModelProto:
    batch, sequence = bucket.batch, bucket.sequence
    graph = helper.make_graph(
        nodes.nodes,
        f"encoder_{bucket}",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT32, [batch, sequence]),
            helper.make_tensor_value_info("attention_bias", TensorProto.FLOAT, [batch, 1, 1, sequence]),
        ],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, [batch, weights.hidden_size])],
        nodes.initializers,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="npu-gateway",
    )
