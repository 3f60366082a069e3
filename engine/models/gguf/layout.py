"""Where things are in a GGUF file, found without trusting a number in it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A file may be damaged, or made to do harm.
So no number in it decides how much is read or how often a loop runs before it has been held against the
length of the file and the bounds below, which are several times what published models need.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

_VERSIONS = (2, 3)
_MOST_HEADER_BYTES = 64 << 20
_MOST_KEYS = 1 << 16
_MOST_TENSORS = 1 << 16
_MOST_ELEMENTS = 1 << 21
"""Of all lists together. A vocabulary of 262,144 tokens has four lists of that length."""

_MOST_TEXT_BYTES = 8 << 20
_MOST_NAME_BYTES = (1 << 16) - 1
_MOST_DIMENSIONS = 4

_NUMBERS: Mapping[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_TEXT, _LIST = 8, 9

V = TypeVar("V")


@dataclass(frozen=True)
class StoredTensor:
    """shape: [rows, columns] of a matrix (the file has the reverse). offset: from the start of the file."""

    name: str
    quantisation: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def read_layout(content: memoryview) -> Layout:
    """content: the whole file. Raises ValueError, saying what is wrong with it."""
    header = _Header(content[:_MOST_HEADER_BYTES])
    if bytes(header.take(4)) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    if (version := header.integer("<I")) not in _VERSIONS:
        raise ValueError(f"its version is {version}")
    tensors = _bounded(header.integer("<Q"), _MOST_TENSORS, "tensors")
    keys = _bounded(header.integer("<Q"), _MOST_KEYS, "keys")
    metadata = _unique((header.text(_MOST_NAME_BYTES), header.value()) for _ in range(keys))
    named = _unique((header.text(_MOST_NAME_BYTES), _place(header)) for _ in range(tensors))
    alignment = _alignment(metadata)
    start = header.position + -header.position % alignment
    stored = [_stored(name, place, start, alignment, len(content)) for name, place in named.items()]
    _refuse_overlaps(stored)
    return Layout(metadata, {tensor.name: tensor for tensor in stored})


class _Header:
    """Reads from the front; whatever goes beyond the end raises ValueError."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._elements = 0
        self.position = 0

    def take(self, size: int) -> memoryview:
        if size > len(self._content) - self.position:
            raise ValueError("its header has no end")
        start, self.position = self.position, self.position + size
        return self._content[start : self.position]

    def integer(self, form: str) -> int:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(value)

    def text(self, most_bytes: int) -> str:
        return str(self.take(_bounded(self.integer("<Q"), most_bytes, "bytes in one text")), "utf-8")

    def value(self) -> Any:
        match self.integer("<I"):
            case kind if kind == _TEXT:
                return self.text(_MOST_TEXT_BYTES)
            case kind if kind == _LIST:
                return self._list()
            case kind:
                return self._numbers(kind, 1)[0]

    def _list(self) -> list[Any]:
        kind, length = self.integer("<I"), self.integer("<Q")
        self._elements = _bounded(self._elements + length, _MOST_ELEMENTS, "elements in lists")
        if kind == _LIST:
            raise ValueError("it has a list of lists")
        if kind == _TEXT:
            return [self.text(_MOST_TEXT_BYTES) for _ in range(length)]
        return self._numbers(kind, length)

    def _numbers(self, kind: int, count: int) -> list[Any]:
        if kind not in _NUMBERS:
            raise ValueError(f"it has a value of the unknown kind {kind}")
        values: list[Any] = np.frombuffer(self.take(count * _NUMBERS[kind].itemsize), _NUMBERS[kind]).tolist()
        return values


@dataclass(frozen=True)
class _Place:
    """A tensor as the header has it. dimensions: columns first. offset: from the start of the data."""

    dimensions: tuple[int, ...]
    kind: int
    offset: int


def _place(header: _Header) -> _Place:
    count = _bounded(header.integer("<I"), _MOST_DIMENSIONS, "dimensions")
    return _Place(
        dimensions=tuple(header.integer("<Q") for _ in range(count)),
        kind=header.integer("<I"),
        offset=header.integer("<Q"),
    )


def _stored(name: str, place: _Place, start: int, alignment: int, file_bytes: int) -> StoredTensor:
    if not place.dimensions or 0 in place.dimensions:
        raise ValueError(f"the tensor {name!r} is empty")
    if place.kind not in GGML_QUANT_SIZES:
        raise ValueError(f"the tensor {name!r} is of the unknown kind {place.kind}")
    quantisation = GGMLQuantizationType(place.kind)
    block_elements, block_bytes = GGML_QUANT_SIZES[quantisation]
    if place.dimensions[0] % block_elements:
        raise ValueError(f"the rows of the tensor {name!r} are no whole blocks of {block_elements}")
    size_bytes = math.prod(place.dimensions) // block_elements * block_bytes
    if place.offset % alignment:
        raise ValueError(f"the tensor {name!r} is not aligned to {alignment} bytes")
    if start + place.offset + size_bytes > file_bytes:
        raise ValueError(f"the tensor {name!r} lies beyond the end of the file")
    return StoredTensor(name, quantisation, place.dimensions[::-1], start + place.offset, size_bytes)


def _refuse_overlaps(tensors: list[StoredTensor]) -> None:
    for left, right in pairwise(sorted(tensors, key=lambda tensor: tensor.offset)):
        if left.offset + left.size_bytes > right.offset:
            raise ValueError(f"the tensors {left.name!r} and {right.name!r} overlap")


def _alignment(metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment not in (1 << power for power in range(17)):
        raise ValueError(f"its alignment is {str(alignment)[:40]}")
    return alignment


def _bounded(number: int, most: int, of_what: str) -> int:
    if number > most:
        raise ValueError(f"it has {number} {of_what}; at most {most} are read")
    return number


def _unique(pairs: Iterable[tuple[str, V]]) -> dict[str, V]:
    found: dict[str, V] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has {name[:80]!r} twice")
        found[name] = value
    return found
