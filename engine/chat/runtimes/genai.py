"""Runs a chat model with onnxruntime-genai, one Generator per conversation, taking turns.

Observed in onnxruntime-genai 0.18 on the CPU, and why this looks as it does:
- `append_tokens` computes at once and holds the GIL; it can be called in slices with the same result. So the
  scheduler decides how much is read at a time, and can stop between slices.
- Its own Engine batches statically: whoever comes late waits until all rows of the batch have ended.
- A Generator allocates and clears its KV memory up front, for `max_length` tokens (20 ms and 46 MB per
  1,024 tokens of SmolLM2-135M), and cannot grow: a conversation that outgrows its Generator is read again
  into one with twice the room.
- `rewind_to` must be followed by `append_tokens`; the logits are wrong before.
- `get_logits` knows the last token only; the output itself has a row for each token just read, unless the
  model's head was made to read the last one only (`prune_lm_head`). Drafts need all rows.
"""

import ctypes
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import of onnxruntime_genai

import numpy as np
import onnxruntime_genai as og
from numpy.typing import NDArray

from engine.chat.runtimes.kv_memory import KvMemory
from engine.chat.runtimes.runtime import (
    Advanced,
    Logits,
    Outcome,
    OutOfMemory,
    SequenceFailed,
    SequenceWork,
    TokenSequence,
)
from engine.errors import EngineError
from engine.models.containment import CONFIG, require_contained

logger = logging.getLogger(__name__)

_GENAI_ERRORS = (RuntimeError, MemoryError)
"""What its bindings raise."""

_MOST_CONTEXTS = 2
"""A small model needs no more memory than two whole contexts (SmolLM2: 720 MiB), whatever it is allowed."""

_LOGITS = "logits"

_PROBE_TOKENS = 16
_ROOM_BYTES = 64 << 20
_LEAST_ROOM_TOKENS = 512
_TIGHT_ROOM_TOKENS = 256
"""Room for the answer, and for the next turn: what 64 MiB hold (SmolLM2: 1,456 tokens), at least 512 tokens
(Phi-3: 384 MiB); when memory is short, 256 tokens."""


class GenaiCache:
    """A Generator, and the tokens that it has read."""

    def __init__(self, model: Any, capacity: int) -> None:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=capacity, do_sample=False)
        self._generator = og.Generator(model, parameters)
        self.capacity = capacity
        self.tokens: list[int] = []

    def rewind(self, length: int) -> None:
        if length < len(self.tokens):
            self._generator.rewind_to(length)
            del self.tokens[length:]

    def read(self, tokens: Sequence[int]) -> None:
        self._generator.append_tokens(np.array(tokens, dtype=np.int32))
        self.tokens += tokens

    def output(self, name: str) -> NDArray[Any]:
        output: NDArray[Any] = self._generator.get_output(name)
        return output

    def release(self) -> None:
        del self._generator

    def logits(self, rows: int) -> list[Logits]:
        """After each of the last tokens that were read together."""
        if rows == 1:
            return [self._generator.get_logits().reshape(-1)]
        return list(self.output(_LOGITS)[0, -rows:])


class GenaiSequence:
    def __init__(self, tokens: Sequence[int], limit: int, cache: GenaiCache) -> None:
        self.tokens = list(tokens)
        self.limit = limit
        self.cache = cache
        self.cached_tokens = len(cache.tokens)

    @property
    def unread(self) -> int:
        return max(len(self.tokens) - len(self.cache.tokens), 0)

    def append(self, token: int) -> None:
        read_ahead = self.cache.tokens[len(self.tokens) :]
        if read_ahead and read_ahead[0] != token:  # the draft was wrong
            self.cache.rewind(len(self.tokens))
        self.tokens.append(token)

    def read(self, count: int, draft: Sequence[int] = ()) -> list[Logits]:
        if count < self.unread:  # a larger cache is read from the start: the draft's turn has not come
            draft = ()
        start = len(self.cache.tokens)
        self.cache.read([*self.tokens[start : start + count], *draft])
        return [] if self.unread else self.cache.logits(1 + len(draft))


class GenaiRuntime:
    """Implements `engine.chat.runtimes.runtime.Runtime`; all calls must come from one thread.

    folder: a model in the format of onnxruntime-genai.
    context_tokens: the longest conversation wanted; None for as long as the model can.
    kv_bytes: the most memory that all conversations together may take.
    """

    def __init__(self, folder: Path, *, threads: int, context_tokens: int | None, kv_bytes: int) -> None:
        require_contained(folder)
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model"]
        self._model = _load(folder, threads)
        probe = GenaiCache(self._model, _PROBE_TOKENS)
        probe.read([0, 0])
        self.reads_drafts = probe.output(_LOGITS).shape[1] == 2
        self._token_bytes = _kv_bytes_per_token(probe, settings["decoder"])
        budget_tokens = min(kv_bytes // self._token_bytes, _MOST_CONTEXTS * settings["context_length"])
        self.context_tokens = min(context_tokens or budget_tokens, budget_tokens, settings["context_length"])
        self.vocabulary_size = int(settings["vocab_size"])
        self._room = max(_ROOM_BYTES // self._token_bytes, _LEAST_ROOM_TOKENS)
        self._memory = KvMemory(budget_tokens, lambda capacity: GenaiCache(self._model, capacity))

    def open(self, tokens: Sequence[int], limit: int) -> GenaiSequence | None:
        try:
            cache = self._memory.take(tokens, self._capacities(len(tokens), limit, self._room))
        except _GENAI_ERRORS as error:
            raise EngineError(f"The chat model cannot begin a conversation: {error}") from error
        return GenaiSequence(tokens, limit, cache) if cache else None

    def advance(self, work: Sequence[SequenceWork]) -> Iterator[Outcome]:
        for item in work:
            assert isinstance(item.sequence, GenaiSequence)
            yield self._advance(item.sequence, item.tokens, item.draft)

    def close(self, sequence: TokenSequence) -> None:
        assert isinstance(sequence, GenaiSequence)
        self._memory.rest(sequence.cache)

    def forget(self) -> None:
        self._memory.forget()
        _return_freed_memory()

    def _advance(self, sequence: GenaiSequence, count: int, draft: Sequence[int]) -> Outcome:
        try:
            if len(sequence.tokens) > sequence.cache.capacity and not self._grow(sequence):
                return OutOfMemory(sequence)
            room = sequence.cache.capacity - len(sequence.tokens)
            return Advanced(sequence, sequence.read(count, draft[:room]))
        except _GENAI_ERRORS as error:
            logger.exception("a conversation of %d tokens failed", len(sequence.tokens))
            self._memory.drop(sequence.cache)
            return SequenceFailed(
                sequence, EngineError(f"The chat model failed on this conversation: {error}")
            )

    def _grow(self, sequence: GenaiSequence) -> bool:
        """Move the conversation to a larger cache, where it is read again from the start."""
        room = sequence.cache.capacity
        self._memory.drop(sequence.cache)
        capacities = self._capacities(len(sequence.tokens), sequence.limit, room)
        cache = self._memory.take(sequence.tokens, capacities)
        if cache:
            sequence.cache = cache
        return cache is not None

    def _capacities(self, length: int, limit: int, room: int) -> tuple[int, int]:
        good = min(length + room, self.context_tokens)
        return good, min(length + _TIGHT_ROOM_TOKENS, limit, good)


def _load(folder: Path, threads: int) -> Any:
    """Raises EngineError."""
    # Threads wait awake for the next operator, and sleep between steps. Always asleep, SmolLM2 decodes 54
    # tokens/s instead of 73 on two cores; always awake, an idle gateway takes 4 % of a core.
    options = {"intra_op_num_threads": threads, "session.force_spinning_stop": "1"}
    try:
        config = og.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        return og.Model(config)
    except _GENAI_ERRORS as error:
        raise EngineError(f"The chat model in {folder} cannot be loaded: {error}") from error


def _kv_bytes_per_token(probe: GenaiCache, decoder: dict[str, Any]) -> int:
    """Measured on a Generator, because the configuration does not tell the number type."""
    names = (decoder["outputs"]["present_key_names"], decoder["outputs"]["present_value_names"])
    layer_bytes = sum(probe.output(name % 0).nbytes for name in names)
    return int(layer_bytes * decoder["num_hidden_layers"] // _PROBE_TOKENS)


def _return_freed_memory() -> None:
    """glibc keeps what is freed below its last living allocation: at times eight conversations' 640 MB."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def end_tokens(folder: Path) -> frozenset[int]:
    """Those that end an answer."""
    told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model"]["eos_token_id"]
    return frozenset(told if isinstance(told, list) else [told])
