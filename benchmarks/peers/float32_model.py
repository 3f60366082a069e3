"""Model folders for other libraries: the same weights in the float32 forms that they read."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from engine.models.encoders.bert import BertWeights

CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
SPECIAL_TOKENS = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}


def write_hub_folder(model_folder: Path, target: Path) -> None:
    """What fastembed and transformers expect to have downloaded, but for PyTorch's own weights file."""
    write_float32_onnx(model_folder / "model.onnx", target / "model.onnx")
    shutil.copy(model_folder / "tokenizer.json", target)
    tokenizer = SPECIAL_TOKENS | {"model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    for name, content in (
        ("config.json", CONFIG),
        ("tokenizer_config.json", tokenizer),
        ("special_tokens_map.json", SPECIAL_TOKENS),
    ):
        (target / name).write_text(json.dumps(content), encoding="utf-8")


def write_float32_onnx(source: Path, target: Path) -> None:
    """Undo onnxruntime's dynamic quantisation: the graph as it was exported, with dequantised weights."""
    model = onnx.load(source)
    graph = model.graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    nodes = []
    for node in graph.node:
        match node.op_type:
            case "DynamicQuantizeLinear" | "MatMulInteger":
                continue
            case "DequantizeLinear":  # an embedding: take the rows from the float32 matrix
                gather = producers[node.input[0]]
                rows = _base(gather.input[0])
                nodes.append(helper.make_node("Gather", [rows, gather.input[1]], node.output))
            case "Mul" if node.name.endswith("_quant_output_scale_mul"):
                matmul = producers[producers[node.input[0]].input[0]]
                x = producers[matmul.input[0]].input[0]
                nodes.append(helper.make_node("MatMul", [x, _base(matmul.input[1])], node.output))
            case _:
                nodes.append(node)
    used = _used(nodes, {output.name for output in graph.output})
    floats = [_float32(name, tensors) for name in tensors if name.endswith("_quantized")]
    kept = [t for t in graph.initializer if not t.name.endswith(("_quantized", "_scale", "_zero_point"))]
    plain = helper.make_graph(used, graph.name, graph.input, graph.output, [*kept, *floats])
    onnx.save(helper.make_model(plain, opset_imports=model.opset_import, ir_version=8), target)


def torch_state(weights: BertWeights) -> dict[str, NDArray[np.float32]]:
    """By the names of transformers' BertModel; PyTorch keeps matrices as [out, in]."""
    state = {
        "embeddings.word_embeddings.weight": weights.word_embeddings,
        "embeddings.position_embeddings.weight": weights.position_embeddings,
        "embeddings.token_type_embeddings.weight": weights.type_embeddings,
        "embeddings.LayerNorm.weight": weights.embeddings_norm.scale,
        "embeddings.LayerNorm.bias": weights.embeddings_norm.bias,
    }
    for i, layer in enumerate(weights.layers):
        for name, linear in (
            ("attention.self.query", layer.query),
            ("attention.self.key", layer.key),
            ("attention.self.value", layer.value),
            ("attention.output.dense", layer.attention_output),
            ("intermediate.dense", layer.intermediate),
            ("output.dense", layer.output),
        ):
            state[f"encoder.layer.{i}.{name}.weight"] = np.ascontiguousarray(linear.weight.T)
            state[f"encoder.layer.{i}.{name}.bias"] = linear.bias
        for name, norm in (("attention.output", layer.attention_norm), ("output", layer.output_norm)):
            state[f"encoder.layer.{i}.{name}.LayerNorm.weight"] = norm.scale
            state[f"encoder.layer.{i}.{name}.LayerNorm.bias"] = norm.bias
    return state


def _base(quantised_name: str) -> str:
    return quantised_name.removesuffix("_quantized")


def _float32(name: str, tensors: dict[str, NDArray[np.generic]]) -> onnx.TensorProto:
    base = _base(name)
    quantised, zero, scale = (
        tensors[f"{base}_{part}"].astype(np.float32) for part in ("quantized", "zero_point", "scale")
    )
    return numpy_helper.from_array(np.asarray((quantised - zero) * scale), base)


def _used(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """Only the nodes that something wanted depends on, in their order."""
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]
