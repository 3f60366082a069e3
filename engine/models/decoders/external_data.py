"""Writes the weights of an ONNX model beside it, one after the other: they never pile up in memory."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

_ALIGNMENT = 4096
"""Page-aligned tensors can be memory-mapped: an embedding table then costs memory only for the rows used."""


class ExternalData:
    """The file `<model>.data`; each `add` appends a tensor and gives the initializer that points to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, values: NDArray[Any]) -> TensorProto:
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
        offset = self._file.tell()
        self._file.write(np.ascontiguousarray(values).data)
        tensor = TensorProto(
            name=name,
            dims=values.shape,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        location = {"location": self.path.name, "offset": str(offset), "length": str(values.nbytes)}
        for key, value in location.items():
            tensor.external_data.add(key=key, value=value)
        return tensor
