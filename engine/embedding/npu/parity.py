"""The gate every compiled graph passes before it is used: does the NPU compute what the CPU does, row by row?

A wrong fusion in the NPU's compiler shows nowhere else: no error, no warning, and the first row of a batch
may be right while the others are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine.embedding.npu.buckets import Bucket, NpuFault, pad
from engine.embedding.npu.session import BucketSession

MIN_COSINE = 0.999
"""To float32 on the CPU. Float16 on the emulator measures 0.9999 and better; a wrong row 0.84 and worse."""

MIN_COSINE_REORDERED = 0.9999
"""Of a text's vector to itself, elsewhere in the batch."""

SENTENCES = (
    "The museum opens at nine and closes at half past five, except on Mondays. ",
    "def area(width: float, height: float) -> float: return width * height  # square metres ",
    "Der Zug nach Zürich fährt heute von Gleis 7; die Reise dauert etwa 4 Stunden. ",
    "Local embeddings turn each paragraph into 384 numbers, so that similar meanings lie close together. ",
)


@dataclass(frozen=True)
class Probes:
    """Ragged texts, and their vectors [texts, hidden] by a float32 run on the CPU."""

    token_ids: tuple[NDArray[np.int32], ...]
    references: NDArray[np.float32]

    def save(self, file: Path) -> None:
        lengths = [len(ids) for ids in self.token_ids]
        np.savez(file, token_ids=np.concatenate(self.token_ids), lengths=lengths, references=self.references)

    @classmethod
    def load(cls, file: Path) -> "Probes":
        with np.load(file) as saved:
            token_ids = np.split(saved["token_ids"], np.cumsum(saved["lengths"])[:-1])
            return cls(tuple(token_ids), saved["references"])


def make_probes(graph: Path, bucket: Bucket, tokenizer: Path) -> Probes:
    """As many texts as fill one batch and start another, from a full row down to the shortest text."""
    lengths = np.linspace(bucket.sequence, 3, bucket.batch + 2).round().astype(int)
    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_padding()
    token_ids = tuple(_text(reader, row, int(length)) for row, length in enumerate(lengths))
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    vectors = []
    for batch in _batches(token_ids, bucket):
        input_ids, attention_bias = pad(batch, bucket)
        (output,) = session.run(None, {"input_ids": input_ids, "attention_bias": attention_bias})
        vectors.append(np.asarray(output[: len(batch)], np.float32))
    return Probes(token_ids, np.concatenate(vectors))


def _text(tokenizer: Tokenizer, row: int, length: int) -> NDArray[np.int32]:
    start = row % len(SENTENCES)
    text = "".join((*SENTENCES[start:], *SENTENCES[:start])) * (length // len(SENTENCES) + 1)
    tokenizer.enable_truncation(length)
    return np.array(tokenizer.encode(text).ids, np.int32)


def check(session: BucketSession, bucket: Bucket, probes: Probes, *, thorough: bool) -> float:
    """The lowest cosine of a row to its reference. Raises NpuFault when it is below MIN_COSINE.

    thorough: all probes, and one batch in reverse too; else two runs, which cost milliseconds at each load.
    """
    batches = _batches(probes.token_ids, bucket)[: None if thorough else 2]
    vectors = np.concatenate([session.run(batch) for batch in batches])
    worst = _lowest_cosine(vectors, probes.references[: len(vectors)])
    if not worst >= MIN_COSINE:  # also true of NaN
        raise NpuFault(
            f"The NPU's {bucket} graph is wrong: cosine {worst:.4f} to the CPU's vectors.", bucket=bucket
        )
    if thorough and bucket.batch > 1:
        _check_order(session, bucket, batches[0], vectors[: bucket.batch])
    return worst


def _check_order(
    session: BucketSession, bucket: Bucket, batch: Sequence[NDArray[np.int32]], vectors: NDArray[np.float32]
) -> None:
    again = session.run(batch[::-1])[::-1]
    worst = _lowest_cosine(again, vectors)
    if not worst >= MIN_COSINE_REORDERED:
        raise NpuFault(
            f"The NPU's {bucket} graph depends on the order of the batch: cosine {worst:.4f}.", bucket=bucket
        )


def _batches(token_ids: Sequence[NDArray[np.int32]], bucket: Bucket) -> list[Sequence[NDArray[np.int32]]]:
    return [token_ids[i : i + bucket.batch] for i in range(0, len(token_ids), bucket.batch)]


def _lowest_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min(np.sum(a * b, axis=1) / np.maximum(lengths, 1e-12)))
