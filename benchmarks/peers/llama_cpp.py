"""llama.cpp as a contender: several sequences in one batch, each with the memory of its last prompt."""

import ctypes
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

CONTEXT_TOKENS = 4096
BATCH_TOKENS = 512
MOST_SEQUENCES = 8


@dataclass(frozen=True)
class Stream:
    """Seconds from the start, which all streams of a run share, to its first and to its last token."""

    first_seconds: float
    end_seconds: float
    tokens: int


class LlamaCppProcess:
    """A child process, so that its memory can be told from ours."""

    def __init__(self, gguf: Path, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, gguf, threads), daemon=True)
        self._process.start()
        self._connection.recv()

    def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[Stream]:
        self._connection.send((prompts, tokens))
        streams: list[Stream] = self._connection.recv()
        return streams

    def rss_bytes(self) -> int:
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, gguf: Path, threads: int) -> None:
    model = _LlamaCpp(gguf, threads)
    connection.send("ready")
    while True:
        prompts, tokens = connection.recv()
        connection.send(model.run(prompts, tokens))


class _LlamaCpp:
    def __init__(self, gguf: Path, threads: int) -> None:
        import llama_cpp

        self._api = llama_cpp
        llama_cpp.llama_backend_init()
        self._keep_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._keep_quiet, None)
        self._model = llama_cpp.llama_model_load_from_file(
            str(gguf).encode(), llama_cpp.llama_model_default_params()
        )
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = CONTEXT_TOKENS
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.n_seq_max = MOST_SEQUENCES
        parameters.kv_unified = True
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        assert self._context, f"{gguf} cannot be loaded"
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._known: list[list[int]] = [[] for _ in range(MOST_SEQUENCES)]

    def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[Stream]:
        """Greedy, and past the end of the answer, so that all have the same number of tokens."""
        started = time.perf_counter()
        for sequence in range(len(prompts), MOST_SEQUENCES):
            self._forget(sequence, 0)
        last, first = [], []
        for sequence, prompt in enumerate(prompts):
            last.append(self._prefill(sequence, prompt))
            first.append(time.perf_counter() - started)
        for _ in range(tokens - 1):
            last = self._step(last)
        end = time.perf_counter() - started
        return [Stream(seconds, end, tokens) for seconds in first]

    def _prefill(self, sequence: int, prompt: Sequence[int]) -> int:
        known = self._known[sequence]
        same = next((n for n, (a, b) in enumerate(zip(known, prompt, strict=False)) if a != b), len(known))
        shared = min(same, len(prompt) - 1)
        self._forget(sequence, shared)
        for start in range(shared, len(prompt), BATCH_TOKENS):
            read = prompt[start : start + BATCH_TOKENS]
            self._decode([(token, sequence) for token in read], only_last=True)
        return self._best(len(read) - 1)

    def _step(self, last: Sequence[int]) -> list[int]:
        self._decode([(token, sequence) for sequence, token in enumerate(last)], only_last=False)
        return [self._best(row) for row in range(len(last))]

    def _forget(self, sequence: int, keep: int) -> None:
        self._api.llama_memory_seq_rm(self._memory, sequence, keep, -1)
        del self._known[sequence][keep:]

    def _decode(self, rows: Sequence[tuple[int, int]], *, only_last: bool) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for row, (token, sequence) in enumerate(rows):
            batch.token[row] = token
            batch.pos[row] = len(self._known[sequence])
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = not only_last or row == len(rows) - 1
            self._known[sequence].append(token)
        failed = self._api.llama_decode(self._context, batch)
        assert not failed, f"llama_decode: {failed}"

    def _best(self, row: int) -> int:
        logits = self._api.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocabulary,)).argmax())


def requantised(gguf: Path, target: Path) -> None:
    """Write the same model as Q4_0, which llama.cpp runs fastest on CPUs."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    parameters.allow_requantize = True
    failed = llama_cpp.llama_model_quantize(
        str(gguf).encode(), str(target).encode(), ctypes.byref(parameters)
    )
    assert not failed, f"llama_model_quantize: {failed}"
