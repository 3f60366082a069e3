"""Compilers, sessions and compiled graphs with a fault, for the tests of the embedder."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine.embedding.npu.buckets import Bucket, NpuFault, TokenIds
from engine.embedding.npu.device import Npu
from engine.embedding.npu.session import QnnSession
from tests.engine.npu import one_layer_compiler
from tests.golden import GOLDEN

SINGLE = Bucket(1, 32)


BATCH = Bucket(4, 32)


def one_layer(variant: str) -> Sequence[str]:
    return (sys.executable, one_layer_compiler.__file__, variant)


def command(code: str) -> Sequence[str]:
    return (sys.executable, "-c", code)


NO_COMPILER = command("raise SystemExit('nothing was to be compiled')")


def golden_token_ids(bge_folder: Path) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(bge_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    return [tokenizer.encode(item["text"]).ids for item in GOLDEN["items"]]


def delete(binary: Path) -> None:
    binary.unlink()


def truncate(binary: Path) -> None:
    binary.write_bytes(binary.read_bytes()[:-4096])


def flip_a_bit(binary: Path) -> None:
    content = bytearray(binary.read_bytes())
    content[len(content) // 2] ^= 1
    binary.write_bytes(content)


def rename_device(binary: Path) -> None:
    sidecar = binary.with_name("context.json")
    content = json.loads(sidecar.read_text("utf-8"))
    content["key"]["device"] = "another NPU"
    sidecar.write_text(json.dumps(content), "utf-8")


def cut_sidecar(binary: Path) -> None:
    binary.with_name("context.json").write_text('{"key": {', "utf-8")


def sound(session: QnnSession) -> QnnSession:
    return session


@dataclass
class Sessions:
    """Opens real sessions, and notes which; `fault` is called with each before it is used."""

    fault: Callable[[QnnSession], QnnSession] = sound
    opened: list[Bucket] = field(default_factory=list)

    def __call__(self, context: Path, bucket: Bucket, npu: Npu) -> QnnSession:
        self.opened.append(bucket)
        return self.fault(QnnSession(context, bucket, npu))


def refuse(session: QnnSession) -> QnnSession:
    raise NpuFault("the driver is being updated")


class Broken(QnnSession):
    """Passes the parity gate, whose texts are longer, and gives no numbers for a text of three tokens."""

    def __init__(self, session: QnnSession) -> None:
        self._sound = session

    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        vectors = self._sound.run(token_ids)
        return vectors if len(token_ids[0]) > 3 else np.full_like(vectors, np.nan)


class Aging(QnnSession):
    """Right for the two runs of the gate and two more; then it answers every text with the same vector."""

    def __init__(self, session: QnnSession) -> None:
        self._sound = session
        self._runs = 0

    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        self._runs += 1
        vectors = self._sound.run(token_ids)
        return vectors if self._runs <= 4 else np.eye(*vectors.shape, dtype=np.float32)
