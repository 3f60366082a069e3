"""Writes ONNX files that hold nothing but a tensor."""

import random

from onnx import GraphProto, ModelProto, TensorProto


def onnx_file(weight_bytes: int) -> bytes:
    """With so many random bytes in it."""
    weights = TensorProto(name="weights", dims=[weight_bytes], data_type=TensorProto.UINT8)
    weights.raw_data = random.Random(0).randbytes(weight_bytes)
    return with_tensor(weights)


def with_tensor(tensor: TensorProto) -> bytes:
    return bytes(ModelProto(graph=GraphProto(initializer=[tensor])).SerializeToString())


def tensor_in(location: str) -> TensorProto:
    """One whose content is in another file."""
    tensor = TensorProto(name="elsewhere", dims=[4], data_type=TensorProto.UINT8)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor
