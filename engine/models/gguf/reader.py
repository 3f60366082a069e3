"""Reads a GGUF file: typed metadata, and tensors as float32.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package parses and
dequantises; this module adds types and turns whatever is wrong with a file into a ModelSupplyError.
"""

import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from numpy.typing import NDArray

from engine.errors import ModelSupplyError

FloatArray = NDArray[np.float32]

QUANTISATIONS = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")

# What GGUFReader and the numpy views in it raise on files that end early or hold nonsense.
_MALFORMED = (ValueError, KeyError, IndexError, OverflowError, TypeError, struct.error)


class GgufFile:
    """An open GGUF file. Use it in a `with`: it is memory-mapped, and Windows cannot delete a mapped file.

    Raises ModelSupplyError if the file is no GGUF file, is cut short or has an unsupported quantisation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        try:
            reader: Any = GGUFReader(path)
            self._metadata = {key: field.contents() for key, field in reader.fields.items()}
        except OSError as error:
            raise ModelSupplyError(f"{path} cannot be read: {error}") from error
        except _MALFORMED as error:
            raise self.malformed(str(error)) from error
        self._tensors: dict[str, Any] = {tensor.name: tensor for tensor in reader.tensors}
        self._refuse_unknown_quantisations()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tensors.clear()  # the last references to the mapping

    def __contains__(self, key: str) -> bool:
        return key in self._metadata

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._typed(key, (str,), "a text", default))

    def integer(self, key: str, default: int | None = None) -> int:
        return int(self._typed(key, (int,), "a whole number", default))

    def number(self, key: str, default: float | None = None) -> float:
        return float(self._typed(key, (int, float), "a number", default))

    def flag(self, key: str, default: bool | None = None) -> bool:
        return bool(self._typed(key, (bool,), "true or false", default))

    def array(self, key: str) -> list[Any]:
        return list(self._typed(key, (list,), "a list", None))

    @property
    def tensor_names(self) -> set[str]:
        return set(self._tensors)

    @property
    def parameters(self) -> int:
        return sum(int(tensor.n_elements) for tensor in self._tensors.values())

    @property
    def tensor_bytes(self) -> int:
        return sum(int(tensor.n_bytes) for tensor in self._tensors.values())

    def has_tensor(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """[rows, columns] of a matrix (GGUF itself stores the reverse)."""
        return tuple(int(size) for size in reversed(self._tensor(name).shape))

    def quantisation(self, name: str) -> str:
        return GGMLQuantizationType(self._tensor(name).tensor_type).name

    def tensor(self, name: str) -> FloatArray:
        stored = self._tensor(name)
        self.bytes_read += stored.data.nbytes
        values: FloatArray = np.ascontiguousarray(dequantize(stored.data, stored.tensor_type), np.float32)
        return values

    def malformed(self, detail: str) -> ModelSupplyError:
        return ModelSupplyError(
            f"{self.path} is not a complete, valid GGUF file ({detail}). Download or export it again."
        )

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            raise self.malformed(f"the tensor {name!r} is missing")
        return self._tensors[name]

    def _typed(self, key: str, kinds: tuple[type, ...], wording: str, default: Any) -> Any:
        value = self._metadata.get(key, default)
        if value is None:
            raise self.malformed(f"the key {key!r} is missing")
        if not isinstance(value, kinds):
            raise self.malformed(f"the key {key!r} is not {wording}")
        return value

    def _refuse_unknown_quantisations(self) -> None:
        kinds = {self.quantisation(name) for name in self._tensors}
        if unknown := sorted(kinds.difference(QUANTISATIONS)):
            raise ModelSupplyError(
                f"{self.path} is quantised as {', '.join(unknown)}, which cannot be imported. "
                f"Supported: {', '.join(QUANTISATIONS)}."
            )
