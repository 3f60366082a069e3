"""Compiles the model's first layer alone, which the emulator runs ten times as fast as all twelve.

    python one_layer_compiler.py VARIANT MODEL_FOLDER TARGET_FOLDER BATCH SEQUENCE

Stands in for `python -m engine.embedding.npu.compiler`. Variants: `sound`, or one of the faults below.
"""

import sys
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import numpy_helper

from engine.embedding.npu.buckets import Bucket
from engine.embedding.npu.compiler import compile_graph
from engine.embedding.npu.graph import build_graph
from engine.errors import EngineError
from engine.models.encoders.bert import load_weights


def one_layer_graph(model_folder: Path, bucket: Bucket) -> onnx.ModelProto:
    weights = load_weights(model_folder)
    return build_graph(replace(weights, layers=weights.layers[:1]), bucket)


def leave_positions_to_broadcasting(graph: onnx.ModelProto, bucket: Bucket) -> None:
    """As every exporter does: position embeddings of shape [1, sequence, hidden]."""
    for tensor in graph.graph.initializer:
        if list(tensor.dims[:2]) == [bucket.batch, bucket.sequence]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:1], tensor.name))


def leave_the_sequence_open(graph: onnx.ModelProto, bucket: Bucket) -> None:
    for tensor in graph.graph.input:
        tensor.type.tensor_type.shape.dim[-1].dim_param = "sequence"


def main() -> None:
    variant, model, target, batch, sequence = sys.argv[1:]
    bucket = Bucket(int(batch), int(sequence))
    graph = one_layer_graph(Path(model), bucket)
    if variant == "untiled":
        leave_positions_to_broadcasting(graph, bucket)
    elif variant == "dynamic":
        leave_the_sequence_open(graph, bucket)
    try:
        compile_graph(graph, bucket, Path(model), Path(target))
    except EngineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
