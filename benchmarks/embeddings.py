"""Embedding speed and fidelity on this machine's CPU, next to other libraries with the same weights.

    pip install fastembed sentence-transformers "torch==2.13.0"
    python -m benchmarks.embeddings

All contenders are loaded at once, each in a process of its own, and take turns on the same texts, so that
whatever else the machine does hurts all alike; the best of the repeats counts. The table is printed and
written to benchmarks/results/embeddings-DATE.md.
"""

import datetime
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

from benchmarks.peers import encoders
from benchmarks.peers.encoders import Embed, Vectors
from benchmarks.peers.float32_model import write_hub_folder
from benchmarks.support.arguments import parser
from benchmarks.support.corpora import Corpora, corpora
from benchmarks.support.machine import machine
from engine.embedding.tokenizer import TextTokenizer
from engine.hardware import physical_cores
from engine.settings import Home

REFERENCE = "onnxruntime float32, sorted"
CONTENDERS: dict[str, Callable[[Path, Path, int], Embed]] = {
    "npu-gateway": encoders.npu_gateway,
    "fastembed": encoders.fastembed,
    "sentence-transformers float32": encoders.sentence_transformers_float32,
    "sentence-transformers bfloat16": encoders.sentence_transformers_bfloat16,
    "torch bfloat16, sorted": encoders.torch_bfloat16,
    REFERENCE: encoders.onnxruntime_float32,
    "onnxruntime int8 (the wheel's graph), sorted": encoders.onnxruntime_int8,
}
PACKAGES = ("onnxruntime", "tokenizers", "fastembed", "sentence-transformers", "torch")
SINGLE_TEXTS = 60


class Contender:
    """A child process that embeds."""

    def __init__(self, name: str, folder: Path, hub_folder: Path, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, name, folder, hub_folder, threads), daemon=True
        )
        self._process.start()
        self._connection.recv()

    def embed(self, texts: Sequence[str]) -> tuple[float, float, Vectors]:
        """Seconds, seconds of CPU time, vectors."""
        self._connection.send(texts)
        seconds, cpu_seconds, vectors = self._connection.recv()
        return seconds, cpu_seconds, vectors

    def peak_bytes(self) -> int:
        """Ends the process."""
        self._connection.send(None)
        peak: int = self._connection.recv()
        self._process.join()
        return peak


def _serve(connection: Connection, name: str, folder: Path, hub_folder: Path, threads: int) -> None:
    embed = CONTENDERS[name](folder, hub_folder, threads)
    embed(["The first run allocates and compiles."])
    connection.send("ready")
    while (texts := connection.recv()) is not None:
        start, cpu_start = time.perf_counter(), time.process_time()
        vectors = embed(texts)
        connection.send((time.perf_counter() - start, time.process_time() - cpu_start, vectors))
    connection.send(_peak_bytes())


def _peak_bytes() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":  # ru_maxrss starts at the size of the parent here
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass
class Measured:
    texts_per_second: dict[str, float] = field(default_factory=dict)
    texts_per_cpu_second: dict[str, float] = field(default_factory=dict)
    single_seconds: list[float] = field(default_factory=list)
    vectors: dict[str, Vectors] = field(default_factory=dict)
    peak_bytes: int = 0


def measure(
    texts: Corpora, folder: Path, hub_folder: Path, *, threads: int, repeats: int
) -> dict[str, Measured]:
    running = {name: Contender(name, folder, hub_folder, threads) for name in CONTENDERS}
    measured = {name: Measured() for name in CONTENDERS}
    for _ in range(repeats):
        for corpus, content in vars(texts).items():
            for name, contender in running.items():
                seconds, cpu_seconds, vectors = contender.embed(content)
                result = measured[name]
                result.vectors[corpus] = vectors
                keep_best(result.texts_per_second, corpus, len(content) / seconds)
                keep_best(result.texts_per_cpu_second, corpus, len(content) / cpu_seconds)
                print(f"{corpus:6} {name:46} {len(content) / seconds:8.1f} texts/s", flush=True)
    for text in texts.short[:SINGLE_TEXTS]:
        for name, contender in running.items():
            measured[name].single_seconds.append(contender.embed([text])[0])
    for name, contender in running.items():
        measured[name].peak_bytes = contender.peak_bytes()
    return measured


def keep_best(best: dict[str, float], corpus: str, speed: float) -> None:
    best[corpus] = max(best.get(corpus, 0), speed)


def report(texts: Corpora, measured: dict[str, Measured], folder: Path, threads: int) -> str:
    tokenizer = TextTokenizer.load(folder, 512)
    tokens = {
        corpus: statistics.mean(map(len, tokenizer.encode_batch(content, on_overflow="truncate").ids))
        for corpus, content in vars(texts).items()
    }
    sizes = "; ".join(
        f"{c}: {len(t)} texts of {tokens[c]:.0f} tokens on average" for c, t in vars(texts).items()
    )
    lines = [
        f"# Embeddings on a CPU, {datetime.date.today()}",
        "",
        f"bge-small-en-v1.5, the same weights everywhere. Machine: {machine()}; {threads} threads each. "
        f"Versions: {', '.join(f'{p} {version(p)}' for p in PACKAGES)}. "
        f"Docstrings of Python's standard library, {sizes}. "
        "Contenders took turns; the best of the repeats. Made by `python -m benchmarks.embeddings`.",
        "",
        "Texts/s (tokens/s; texts per second of CPU time), latency of single short texts, "
        "cosine to float32 over all texts, peak memory:",
        "",
        "| | short | mixed | long | one text, p50 / p95 ms | cosine mean / min | peak MB |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, result, measured[REFERENCE], tokens) for name, result in measured.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, result: Measured, reference: Measured, tokens: dict[str, float]) -> str:
    speeds = [
        f"{speed:.1f} ({speed * tokens[corpus]:,.0f}; {result.texts_per_cpu_second[corpus]:.1f})"
        for corpus, speed in result.texts_per_second.items()
    ]
    p50, p95 = np.percentile(result.single_seconds, [50, 95]) * 1e3
    cosines = np.concatenate([(result.vectors[c] * reference.vectors[c]).sum(axis=1) for c in tokens])
    fidelity = f"{cosines.mean():.5f} / {cosines.min():.5f}"
    columns = [name, *speeds, f"{p50:.1f} / {p95:.1f}", fidelity, f"{result.peak_bytes / 1e6:.0f}"]
    return f"| {' | '.join(columns)} |"


def main() -> None:
    options = parser("embeddings", __doc__)
    options.add_argument("--model-folder", type=Path, default=Home.locate().models / "bge-small-en-v1.5")
    options.add_argument("--short", type=int, default=2048)
    options.add_argument("--mixed", type=int, default=1024)
    options.add_argument("--long", type=int, default=128)
    options.add_argument("--repeats", type=int, default=2)
    options.add_argument("--threads", type=int, default=physical_cores())
    arguments = options.parse_args()
    texts = corpora(short=arguments.short, mixed=arguments.mixed, long=arguments.long)
    with tempfile.TemporaryDirectory() as hub_folder:
        write_hub_folder(arguments.model_folder, Path(hub_folder))
        measured = measure(
            texts,
            arguments.model_folder,
            Path(hub_folder),
            threads=arguments.threads,
            repeats=arguments.repeats,
        )
    written = report(texts, measured, arguments.model_folder, arguments.threads)
    target = Path(__file__).parent / "results" / f"embeddings-{datetime.date.today()}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
