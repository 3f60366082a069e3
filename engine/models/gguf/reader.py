"""Reads a GGUF file: typed metadata, and tensors as float32.

The `gguf` package dequantises. Its own reader is not used: it believes the file, and loops over a list of
2**62 elements for as long as it takes.
"""

import stat
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from gguf import dequantize, quant_shape_to_byte_shape
from numpy.typing import NDArray

from engine.errors import ModelSupplyError
from engine.models.gguf.layout import StoredTensor, read_layout

FloatArray = NDArray[np.float32]

QUANTISATIONS = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")


class GgufFile:
    """An open GGUF file. Use it in a `with`: it is memory-mapped, and Windows cannot delete a mapped file.

    Raises ModelSupplyError if the file is no GGUF file, is cut short or has an unsupported quantisation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        try:
            self._content = _mapped(path)
            layout = read_layout(self._content.data)
        except OSError as error:
            raise ModelSupplyError(f"{path} cannot be read: {error}") from error
        except ValueError as error:
            raise self.malformed(str(error)) from error
        self._metadata, self._tensors = layout.metadata, layout.tensors
        self._refuse_unknown_quantisations()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._content  # the last reference to the mapping

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

    def texts(self, key: str) -> list[str]:
        return self._list(key, (str,), "a list of texts")

    def integers(self, key: str) -> list[int]:
        return self._list(key, (int,), "a list of whole numbers")

    def numbers(self, key: str) -> list[float]:
        return self._list(key, (int, float), "a list of numbers")

    @property
    def tensor_names(self) -> set[str]:
        return set(self._tensors)

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self._tensors.values())

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.size_bytes for tensor in self._tensors.values())

    def has_tensor(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """[rows, columns] of a matrix."""
        return self._tensor(name).shape

    def quantisation(self, name: str) -> str:
        return self._tensor(name).quantisation.name

    def tensor(self, name: str) -> FloatArray:
        stored = self._tensor(name)
        self.bytes_read += stored.size_bytes
        content = self._content[stored.offset : stored.offset + stored.size_bytes]
        blocks = content.reshape(quant_shape_to_byte_shape(stored.shape, stored.quantisation))
        return np.ascontiguousarray(dequantize(blocks, stored.quantisation), np.float32)

    def malformed(self, detail: str) -> ModelSupplyError:
        return ModelSupplyError(
            f"{self.path} is not a complete, valid GGUF file ({detail}). Download or export it again."
        )

    def _tensor(self, name: str) -> StoredTensor:
        if name not in self._tensors:
            raise self.malformed(f"the tensor {name!r} is missing")
        return self._tensors[name]

    def _list(self, key: str, kinds: tuple[type, ...], wording: str) -> list[Any]:
        """All elements of a list are of one kind."""
        values: list[Any] = self._typed(key, (list,), wording, None)
        if values and not isinstance(values[0], kinds):
            raise self.malformed(f"the key {key!r} is not {wording}")
        return values

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


def _mapped(path: Path) -> NDArray[np.uint8]:
    """Raises OSError, ValueError."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for whoever writes to it
        raise OSError("it is not a file")
    return np.memmap(path, np.uint8, mode="r")
