"""What an int8 key-value cache would bring a chat model, and what it would cost in quality.

    python -m benchmarks.kv_cache_int8 MODEL_FOLDER SCRATCH_FOLDER [--speed-only]

Compares variants of a model made by `int8_kv_model` with its float32 cache: speed in turns, memory,
next-token distributions on text that the scales have not seen, greedy answers. --speed-only is for random
weights, whose quality means nothing. Both folders must be on one file system: weights are hard links.
"""

import argparse
import ast
import inspect
import json
import os
import pydoc
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import of either runtime

import numpy as np
import onnxruntime_genai as og
import psutil

from benchmarks.support.arguments import parser
from benchmarks.support.corpora import corpora
from benchmarks.support.int8_kv_model import SLICE, Floats, Scheme, Tokens, calibrate, slices, write_variant
from benchmarks.support.int8_kv_quality import Agreement, compare
from engine.hardware import physical_cores

TEXT_TOKENS = 2000
POSITIONS = ((0, 128), (128, 512), (512, TEXT_TOKENS))
SPEED_TOKENS, DECODED, ROUNDS = 1536, 32, 3
ANSWER_TOKENS = 64
QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue? Answer in two sentences.",
    "Write a Python function that reverses a string.",
    "Name three planets and one fact about each.",
    "Translate 'good morning' into Spanish and German.",
    "What is 17 plus 25? Explain each step.",
    "Write a short poem about the sea.",
    "Summarise in one sentence: A cache keeps what was computed once, so that it need not be computed again.",
    "Give me a recipe for pancakes as a list.",
    "Who wrote Romeo and Juliet, and when?",
)


SCHEMES = (
    Scheme("PER_TENSOR", 4, TEXT_TOKENS),
    Scheme("PER_CHANNEL", 4, TEXT_TOKENS),
    Scheme("PER_CHANNEL", 2, 512),
    Scheme("PER_CHANNEL", 2, 512, rotary=True, margin=1.25),
)
SPEED_SCHEMES = (Scheme("PER_CHANNEL", 2, 128, rotary=True, margin=1.25),)
FLOAT32 = "float32"


def answers(folder: Path) -> list[list[int]]:
    """Greedy, one Generator for all questions, rewound between them."""
    model = load(folder)
    tokenizer = og.Tokenizer(model)
    cache = Cache(model, 512)
    result = []
    for question in QUESTIONS:
        prompt = tokenizer.encode(_as_prompt(tokenizer, question))
        cache.generator.rewind_to(0)
        token = int(cache.read(prompt).argmax())
        answer: list[int] = []
        while token not in tokenizer.eos_token_ids and len(answer) < ANSWER_TOKENS:
            answer.append(token)
            token = int(cache.read([token]).argmax())
        result.append(answer)
    return result


# Speed and memory, as the gateway runs a model.


def load(folder: Path) -> Any:
    """With the session options of the chat worker."""
    config = og.Config(str(folder))
    options = {"intra_op_num_threads": physical_cores(), "session.intra_op.allow_spinning": "0"}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    return og.Model(config)


class Cache:
    def __init__(self, model: Any, capacity: int) -> None:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=capacity, do_sample=False)
        self.generator = og.Generator(model, parameters)

    def read(self, tokens: Sequence[int] | Tokens) -> Floats:
        for piece in slices(np.asarray(tokens)):
            self.generator.append_tokens(piece.astype(np.int32))
        logits: Floats = self.generator.get_logits().reshape(-1)
        return logits


@dataclass(frozen=True)
class Run:
    """Tokens a second; bytes per token of the cache, and of resident memory with it."""

    prefill: float
    decode: float
    cache_bytes: float
    resident_bytes: float
    rewinds: bool


def measure(folders: Mapping[str, Path], tokens: Tokens) -> dict[str, list[Run]]:
    """In turns. The caches of two rounds are kept, so that those of the second cannot reuse memory."""
    models = {name: load(folder) for name, folder in folders.items()}
    kept: list[Cache] = []
    runs: dict[str, list[Run]] = {name: [] for name in folders}
    for number in range(ROUNDS):
        for name, folder in folders.items():
            settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
            cache, run = _run(models[name], settings["model"]["decoder"]["num_hidden_layers"], tokens)
            runs[name].append(run)
            kept += [cache] if number < 2 else []
    return runs


def _run(model: Any, layers: int, tokens: Tokens) -> tuple[Cache, Run]:
    capacity = len(tokens) + SLICE
    resident = psutil.Process().memory_info().rss
    started = time.perf_counter()
    cache = Cache(model, capacity)
    expected = cache.read(tokens)
    prefill = len(tokens) / (time.perf_counter() - started)
    resident = psutil.Process().memory_info().rss - resident
    started = time.perf_counter()
    for token in tokens[:DECODED]:
        cache.read([int(token)])
    decode = DECODED / (time.perf_counter() - started)
    key_bytes = cache.generator.get_output("present.0.key").nbytes
    cache.generator.rewind_to(len(tokens) - SLICE)
    rewinds = np.array_equal(cache.read(tokens[-SLICE:]), expected)
    return cache, Run(prefill, decode, 2 * layers * key_bytes / capacity, resident / capacity, rewinds)


# The report.


def speed_table(runs: Mapping[str, list[Run]]) -> str:
    lines = [
        "| cache | KV, KiB per token | resident, KiB per token | prefill, decode, tokens/s | exact rewind |",
        "|---" * 5 + "|",
    ]
    for name, each in runs.items():
        prefill = statistics.median(run.prefill for run in each)
        decode = statistics.median(run.decode for run in each)
        cells = (
            f"{each[1].cache_bytes / 1024:.1f}",
            f"{each[1].resident_bytes / 1024:.1f}",
            f"{prefill:.1f}, {decode:.1f}",
            "yes" if all(run.rewinds for run in each) else "no",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def quality_table(agreements: Mapping[str, list[Agreement]], answered: Mapping[str, list[list[int]]]) -> str:
    spans = " | ".join(f"{start}-{end - 1}" for start, end in POSITIONS)
    lines = [
        f"| scales | KL mean (p99) at {spans} | same top token | perplexity (float32) | same answers |",
        "|---" * (len(POSITIONS) + 4) + "|",
    ]
    for name, each in agreements.items():
        cells = []
        for start, end in POSITIONS:
            divergence = np.concatenate([text.divergence[start:end] for text in each])
            cells.append(f"{divergence.mean():.4f} ({np.quantile(divergence, 0.99):.3f})")
        same_top, surprise, float32_surprise = (
            np.concatenate([getattr(text, part) for text in each]).mean()
            for part in ("same_top", "surprise", "reference_surprise")
        )
        same = sum(a == b for a, b in zip(answered[name], answered[FLOAT32], strict=True))
        lines.append(
            f"| {name} | {' | '.join(cells)} | {same_top:.1%} | {np.exp(surprise):.3f} "
            f"({np.exp(float32_surprise):.3f}) | {same} of {len(QUESTIONS)} |"
        )
    return "\n".join(lines)


def texts(folder: Path) -> tuple[list[Tokens], list[Tokens]]:
    """For calibration, prose and source code in turns; and others of both, and documentation in Markdown.

    As messages of a user: with scales from plain text alone, mean divergence on short chat prompts was 0.011,
    with prompts among the texts 0.0025 (SmolLM2-135M).
    """
    tokenizer = og.Tokenizer(og.Config(str(folder)))
    passages = corpora(long=24).long
    prose = [" ".join(passages[start : start + 8]) for start in range(0, 24, 8)]
    code = [inspect.getsource(module) for module in (argparse, ast, pydoc)]
    documents = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    markdown = "\n".join(file.read_text(encoding="utf-8") for file in documents)
    known = [prose[0], code[0], prose[1], code[1]]
    unknown = [prose[2], code[2], markdown]

    def encode(text: str) -> Tokens:
        return np.asarray(tokenizer.encode(_as_prompt(tokenizer, text)), np.int64)[:TEXT_TOKENS]

    return [encode(text) for text in known], [encode(text) for text in unknown]


def _as_prompt(tokenizer: Any, message: str) -> str:
    messages = json.dumps([{"role": "user", "content": message}])
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def main() -> None:
    options = parser("kv_cache_int8", __doc__)
    options.add_argument("model", type=Path)
    options.add_argument("scratch", type=Path)
    options.add_argument("--speed-only", action="store_true")
    arguments = options.parse_args()

    known, unknown = texts(arguments.model)
    schemes = SPEED_SCHEMES if arguments.speed_only else SCHEMES
    folders = {FLOAT32: write_variant(arguments.model, arguments.scratch / FLOAT32, None)}
    for number, scheme in enumerate(schemes):
        scales = calibrate(arguments.model, known, scheme)
        target = arguments.scratch / f"int8_{number}"
        folders[scheme.name] = write_variant(arguments.model, target, scales, scheme.quant_type)

    print(speed_table(measure(folders, unknown[0][:SPEED_TOKENS])))
    if not arguments.speed_only:
        answered = {name: answers(folder) for name, folder in folders.items()}
        print()
        print(quality_table(compare(FLOAT32, folders, unknown), answered))


if __name__ == "__main__":
    main()
