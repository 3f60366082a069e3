"""Measures the default chat model, through the engine."""

import statistics
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass

from engine.bench.docstrings import docstrings
from engine.bench.results import ChatSpeed
from engine.bench.timing import Effort
from engine.engine import Engine
from engine.errors import EngineError
from engine.types import ChatFinished, ChatPiece, ChatRequest, ChatStarted, Device, Message, Sampling, Usage

QUESTION = "What is the capital of France?"
LONG_ANSWER = "Count from 1 to 500, with commas."


@dataclass(frozen=True)
class _Run:
    """Times in seconds since the call."""

    model: str
    device: Device
    first_text: float
    end: float
    usage: Usage

    @property
    def prompt_tokens(self) -> int:
        return self.usage.prompt_tokens - self.usage.cached_tokens


async def chat_speed(engine: Engine, effort: Effort) -> ChatSpeed:
    await _run(engine, QUESTION, 2)  # the first run of all also warms up
    short = [await _run(engine, f"{n}. {QUESTION}", 2) for n in range(effort.least_runs)]
    prompts = _prompts(effort.prompt_words)
    long = [await _run(engine, next(prompts), 2) for _ in range(effort.least_runs)]
    answer = await _run(engine, LONG_ANSWER, effort.decode_tokens)
    decoded = answer.usage.completion_tokens - 1
    if decoded < 1:
        raise EngineError(f"{answer.model} ended its answer at once; there is nothing to measure.")
    return ChatSpeed(
        model=answer.model,
        device=answer.device,
        first_token_ms=statistics.median(run.first_text for run in short) * 1e3,
        prompt_tokens=round(statistics.median(run.prompt_tokens for run in long)),
        prefill_tokens_per_second=statistics.median(run.prompt_tokens / run.first_text for run in long),
        decode_tokens=decoded,
        decode_tokens_per_second=decoded / (answer.end - answer.first_text),
    )


def _prompts(words: int) -> Iterator[str]:
    """Different from their first word on, so that no earlier prompt's cache shortens the work."""
    collected: list[str] = []
    for text in docstrings():
        collected += text.split()
        if len(collected) >= words:
            yield "Summarise this. " + " ".join(collected[:words])
            collected = []


async def _run(engine: Engine, prompt: str, max_tokens: int) -> _Run:
    request = ChatRequest((Message("user", prompt),), sampling=Sampling(max_tokens=max_tokens, temperature=0))
    model, device, first_text = "", None, None
    started = time.perf_counter()
    async with aclosing(engine.chat(request)) as events:
        async for event in events:
            now = time.perf_counter() - started
            match event:
                case ChatStarted():
                    model, device = event.model, event.device
                case ChatPiece() if first_text is None:
                    first_text = now
                case ChatFinished():
                    assert device is not None
                    return _Run(model, device, now if first_text is None else first_text, now, event.usage)
    raise AssertionError("a conversation ended without its last event")
