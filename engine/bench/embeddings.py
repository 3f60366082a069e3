"""Measures the embedding model on one device, through the engine."""

import asyncio
import itertools
import statistics
import time

from engine.bench.docstrings import docstrings
from engine.bench.results import CorpusSpeed, LengthSpeed
from engine.bench.timing import Effort, p95, timed
from engine.embedding.devices.costs import LENGTHS
from engine.embedding.tokenizer import TextTokenizer
from engine.engine import Engine
from engine.errors import EngineError
from engine.types import Device, Embeddings, EmbedRequest

FRAME_TOKENS = 2
"""[CLS] and [SEP], which the engine puts around token ids."""

LEAST_WORDS = 15
"""Of a text in the corpus: shorter docstrings are mostly names."""

PREPARE_SECONDS = 1800.0
"""Five graphs are compiled for an NPU that is new to this home, and each may take minutes."""


class Texts:
    """Real text of any length in tokens. Texts are never the same twice, so that no cache can answer."""

    def __init__(self, tokenizer: TextTokenizer, corpus_texts: int) -> None:
        long_enough = (text for text in docstrings() if text.count(" ") >= LEAST_WORDS)
        self.corpus = tuple(itertools.islice(long_enough, corpus_texts))
        encoded = tokenizer.encode_batch(self.corpus, on_overflow="truncate").ids
        self.corpus_tokens = sum(map(len, encoded))
        self._ids = [int(token) for ids in encoded for token in ids[1:-1]]
        self._starts = itertools.cycle(range(len(self._ids) - LENGTHS[-1]))

    def take(self, tokens: int, count: int) -> tuple[tuple[int, ...], ...]:
        """So many texts of so many tokens, special ones included."""
        starts = itertools.islice(self._starts, count)
        return tuple(tuple(self._ids[start : start + tokens - FRAME_TOKENS]) for start in starts)


async def prepared(engine: Engine) -> None:
    """Wait until the models are loaded and the graphs for an NPU compiled. Raises EngineError."""
    try:
        async with asyncio.timeout(PREPARE_SECONDS):
            while engine.preparing():  # noqa: ASYNC110 - the engine has no event for it
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        details = "; ".join(f"{m.id}: {m.detail}" for m in engine.models() if m.detail)
        raise EngineError(
            f"The models were not ready after {PREPARE_SECONDS:.0f} s. {details or 'See: npu-gateway logs'}"
        ) from error


async def length_speed(
    engine: Engine, device: Device, tokens: int, texts: Texts, effort: Effort
) -> LengthSpeed | None:
    """None where the device does not take texts of this length. Raises EngineError."""
    warm_up = await engine.embed(EmbedRequest(texts.take(tokens, 1)))
    if warm_up.devices != (device,):
        return None
    count = effort.batch_tokens // tokens

    async def embed(inputs: tuple[tuple[int, ...], ...]) -> None:
        result = await engine.embed(EmbedRequest(inputs))
        if result.devices != (device,):
            raise EngineError(
                f"Texts of {tokens} tokens went to {', '.join(result.devices)} while {device} was measured. "
                "See: npu-gateway logs"
            )

    singles = await timed(lambda: embed(texts.take(tokens, 1)), effort)
    batches = await timed(lambda: embed(texts.take(tokens, count)), effort)
    texts_per_second = count / statistics.median(batches)
    return LengthSpeed(
        device=device,
        emulated=warm_up.npu_emulated,
        tokens=tokens,
        single_p50_ms=statistics.median(singles) * 1e3,
        single_p95_ms=p95(singles) * 1e3,
        singles=len(singles),
        texts_per_second=texts_per_second,
        tokens_per_second=texts_per_second * tokens,
        batches=len(batches),
    )


async def corpus_speed(engine: Engine, texts: Texts) -> CorpusSpeed:
    """One request with all texts."""
    started = time.perf_counter()
    result: Embeddings = await engine.embed(EmbedRequest(texts.corpus, on_overflow="truncate"))
    seconds = time.perf_counter() - started
    return CorpusSpeed(
        devices=result.devices,
        emulated=result.npu_emulated,
        texts=len(texts.corpus),
        tokens=texts.corpus_tokens,
        texts_per_second=len(texts.corpus) / seconds,
        tokens_per_second=texts.corpus_tokens / seconds,
    )
