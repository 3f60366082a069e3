"""A corpus of GGUF files that no importer should believe, and a program that tries to import each of them.

    python -m tests.engine.models.bad_gguf FOLDER

writes a Trial as JSON. A process of its own: what is needed at most can only be seen of a whole process.
"""

import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from engine.errors import ModelSupplyError
from engine.models.decoders.convert import convert
from engine.models.progress import silent
from tests.engine.models.gguf_files import TinyGguf, Vocabulary

UINT8, UINT32, TEXT, LIST = 0, 4, 8, 9
F32, Q8_0 = 0, 8


@dataclass(frozen=True)
class Refusal:
    """processor_seconds: what the refusal cost. message: None if the file was imported."""

    processor_seconds: float
    message: str | None


@dataclass(frozen=True)
class Trial:
    """peak_bytes: the most memory that the whole process ever had."""

    refusals: dict[str, Refusal]
    peak_bytes: int


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def text(content: bytes) -> bytes:
    return u64(len(content)) + content


def header(*, tensors: int, keys: int, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + u32(version) + u64(tensors) + u64(keys)


def key(kind: int, value: bytes, name: bytes = b"general.name") -> bytes:
    return text(name) + u32(kind) + value


def with_value(kind: int, value: bytes, name: bytes = b"general.name") -> bytes:
    return header(tensors=0, keys=1) + key(kind, value, name)


def tensor(dimensions: list[int], *, kind: int = F32, offset: int = 0, name: bytes = b"t") -> bytes:
    shape = u32(len(dimensions)) + b"".join(map(u64, dimensions))
    return text(name) + shape + u32(kind) + u64(offset)


def with_tensors(*tensors: bytes, keys: tuple[bytes, ...] = ()) -> bytes:
    described = header(tensors=len(tensors), keys=len(keys)) + b"".join(keys) + b"".join(tensors)
    return described + bytes(-len(described) % 32 + 1024)


BYTES: dict[str, bytes] = {
    "empty": b"",
    "version 1": header(tensors=0, keys=0, version=1),
    "version 2**32-1": header(tensors=0, keys=0, version=2**32 - 1),
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "2**62 keys": header(tensors=0, keys=2**62),
    "2**64-1 keys": header(tensors=0, keys=2**64 - 1),
    "2**32 tensors": header(tensors=2**32, keys=0),
    "2**64-1 tensors": header(tensors=2**64 - 1, keys=0),
    "list of 2**62 numbers": with_value(LIST, u32(UINT8) + u64(2**62)),
    "list of 2**62 texts": with_value(LIST, u32(TEXT) + u64(2**62)),
    "list of 2**64-1 texts": with_value(LIST, u32(TEXT) + u64(2**64 - 1)),
    "list of an unknown kind": with_value(LIST, u32(99) + u64(2**62)),
    "list of lists": with_value(LIST, u32(LIST) + u64(1) + u32(UINT8) + u64(0)),
    "lists 100,000 deep": with_value(LIST, (u32(LIST) + u64(1)) * 100_000),
    "3 million empty texts": with_value(LIST, u32(TEXT) + u64(3_000_000) + bytes(8 * 3_000_000)),
    "value of an unknown kind": with_value(13, bytes(8)),
    "text of 2**63 bytes": with_value(TEXT, u64(2**63) + b"x"),
    "text of 9 million bytes": with_value(TEXT, text(b"x" * 9_000_000)),
    "text that is no UTF-8": with_value(TEXT, text(b"\xff\xfe")),
    "key of 2**62 bytes": header(tensors=0, keys=1) + u64(2**62),
    "the same key twice": header(tensors=0, keys=2) + 2 * key(UINT8, b"1"),
    "the same tensor twice": with_tensors(tensor([8]), tensor([8], offset=32)),
    "2**32-1 dimensions": with_tensors(text(b"t") + u32(2**32 - 1) + u64(1)),
    "no dimensions": with_tensors(tensor([])),
    "a dimension of 0": with_tensors(tensor([8, 0])),
    "dimensions whose product is 2**64": with_tensors(tensor([2**32, 2**32])),
    "dimensions whose product wraps to 8": with_tensors(tensor([2**63, 2, 1, 8])),
    "dimensions of 2**64-1": with_tensors(tensor([2**64 - 1] * 4)),
    "half a block": with_tensors(tensor([16], kind=Q8_0)),
    "an unknown quantisation": with_tensors(tensor([8], kind=250)),
    "a negative offset": with_tensors(tensor([8], offset=2**64 - 32)),
    "an offset beyond the end": with_tensors(tensor([8], offset=2048)),
    "an offset that is not aligned": with_tensors(tensor([8], offset=4)),
    "tensors that overlap": with_tensors(tensor([16], name=b"a"), tensor([16], name=b"b", offset=32)),
    "alignment 0": with_tensors(tensor([8]), keys=(key(UINT32, u32(0), b"general.alignment"),)),
    "alignment 3": with_tensors(tensor([8]), keys=(key(UINT32, u32(3), b"general.alignment"),)),
    "alignment 2**31": with_tensors(tensor([8]), keys=(key(UINT32, u32(2**31), b"general.alignment"),)),
    "alignment that is a list": with_tensors(keys=(key(LIST, u32(UINT8) + u64(0), b"general.alignment"),)),
}

METADATA: dict[str, dict[str, str | int]] = {
    "no layers": {"llama.block_count": 0},
    "2**32-1 layers": {"llama.block_count": 2**32 - 1},
    "no heads": {"llama.attention.head_count": 0},
    "2**32-1 heads": {"llama.attention.head_count": 2**32 - 1},
    "no heads for keys": {"llama.attention.head_count_kv": 0},
    "heads that keys cannot share": {"llama.attention.head_count_kv": 3},
    "heads of no elements": {"llama.attention.key_length": 0},
    "heads of 2**31 elements": {"llama.attention.key_length": 2**31},
    "no width": {"llama.embedding_length": 0},
    "a width of 2**32-32": {"llama.embedding_length": 2**32 - 32},
    "no width of the MLP": {"llama.feed_forward_length": 0},
    "a width of the MLP of 2**32-32": {"llama.feed_forward_length": 2**32 - 32},
    "no context": {"llama.context_length": 0},
    "a context of 2**32-1": {"llama.context_length": 2**32 - 1},
    "a context that is a text": {"llama.context_length": "long"},
    "a window of 2**32-1": {"llama.attention.sliding_window": 2**32 - 1},
    "an end beyond the vocabulary": {"tokenizer.ggml.eos_token_id": 2**32 - 1},
    "a vocabulary that is a text": {"tokenizer.ggml.tokens": "tokens"},
    "merges that are a number": {"tokenizer.ggml.merges": 1},
}


class Worded(TinyGguf):
    """With one token of the vocabulary replaced."""

    def _vocabulary(self) -> Vocabulary:
        vocabulary = super()._vocabulary()
        return replace(vocabulary, tokens=[*vocabulary.tokens[:-1], "x" * 1_000_000])


def corpus(folder: Path) -> Iterator[tuple[str, Path]]:
    for name, content in BYTES.items():
        file = folder / "bytes.gguf"
        file.write_bytes(content)
        yield name, file
    for name, metadata in METADATA.items():
        yield name, TinyGguf(metadata=metadata).write(folder / "metadata.gguf")
    yield "a token of a million characters", Worded(architecture="phi3").write(folder / "worded.gguf")
    yield "a folder", folder
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.gguf")
        yield "a pipe", folder / "pipe.gguf"
    whole = TinyGguf(layers=1).write(folder / "cut.gguf").read_bytes()
    for size in (*range(0, 600, 7), *range(600, len(whole), len(whole) // 40)):
        (folder / "cut.gguf").write_bytes(whole[:size])
        yield f"cut after {size} bytes", folder / "cut.gguf"


def refusal(file: Path, target: Path) -> Refusal:
    target.mkdir(exist_ok=True)
    began = time.process_time()
    try:
        convert(file, target, progress=silent)
    except ModelSupplyError as error:
        return Refusal(time.process_time() - began, str(error))
    return Refusal(time.process_time() - began, None)


def peak_bytes() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":  # getrusage counts the memory of the parent that forked this process too
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def attempt(folder: Path) -> Trial:
    refusals = {name: refusal(file, folder / "imported") for name, file in corpus(folder)}
    return Trial(refusals, peak_bytes())


if __name__ == "__main__":
    json.dump(asdict(attempt(Path(sys.argv[1]))), sys.stdout)
