"""Chat speed and memory on this machine's CPU, next to llama.cpp with the same model.

    pip install llama-cpp-python
    python -m benchmarks.chat NAME FOLDER FILE.gguf

FOLDER: the model as the gateway has it. FILE.gguf: where it was imported from; llama.cpp gets it as Q4_0,
which it runs fastest. Contenders are loaded at once, each in its own process, and take turns; the best of
the repeats counts. All answer greedily and past the end of the answer. The table is printed and written to
benchmarks/results/chat-NAME-DATE.md.
"""

import asyncio
import contextlib
import datetime
import itertools
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from benchmarks.peers.llama_cpp import CONTEXT_TOKENS, LlamaCppProcess, Stream, requantised
from benchmarks.support.arguments import parser
from benchmarks.support.machine import machine
from engine.bench.docstrings import docstrings
from engine.chat.model import ChatModel
from engine.chat.prompt import PromptEncoder
from engine.chat.runtimes.genai import end_tokens
from engine.chat.template import ChatTemplate
from engine.hardware import physical_cores
from engine.models.store import InstalledModel
from engine.models.templates.renderer import TemplateRenderer
from engine.settings import Home, Settings
from engine.types import ChatPiece, ChatRequest, Message, Sampling

Conversation = tuple[Message, ...]


class Contender(Protocol):
    async def run(self, conversations: Sequence[Conversation], tokens: int) -> list[Stream]:
        """All at the same time; each answer has so many tokens."""

    def rss_bytes(self) -> int: ...


class NpuGateway:
    """The chat model as the gateway runs it, without its HTTP."""

    def __init__(self, model: ChatModel, end_tokens: frozenset[int]) -> None:
        self._model = model
        self._never_end = tuple((token, -100.0) for token in end_tokens)

    async def run(self, conversations: Sequence[Conversation], tokens: int) -> list[Stream]:
        started = time.perf_counter()
        return await asyncio.gather(*(self._stream(c, tokens, started) for c in conversations))

    async def _stream(self, conversation: Conversation, tokens: int, started: float) -> Stream:
        sampling = Sampling(max_tokens=tokens, temperature=0, logit_bias=self._never_end)
        first = None
        async for event in self._model.stream(ChatRequest(conversation, sampling=sampling)):
            if isinstance(event, ChatPiece) and first is None:
                first = time.perf_counter() - started
        end = time.perf_counter() - started
        return Stream(end if first is None else first, end, tokens)

    def rss_bytes(self) -> int:
        return self._model.rss_bytes()


class LlamaCpp:
    def __init__(self, process: LlamaCppProcess, encode: Callable[[Conversation], list[int]]) -> None:
        self._process = process
        self._encode = encode

    async def run(self, conversations: Sequence[Conversation], tokens: int) -> list[Stream]:
        return await asyncio.to_thread(self._process.run, [self._encode(c) for c in conversations], tokens)

    def rss_bytes(self) -> int:
        return self._process.rss_bytes()


@contextlib.contextmanager
def _encoder(folder: Path) -> Iterator[PromptEncoder]:
    with TemplateRenderer(folder, folder.name) as renderer:
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        yield PromptEncoder(tokenizer_json, ChatTemplate(renderer.render))


@contextlib.asynccontextmanager
async def contenders(folder: Path, gguf: Path, threads: int) -> AsyncGenerator[dict[str, Contender]]:
    async with contextlib.AsyncExitStack() as stack:
        encoder = stack.enter_context(_encoder(folder))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        requantised(gguf, scratch / "Q4_0.gguf")
        llama_cpp = LlamaCppProcess(scratch / "Q4_0.gguf", threads)
        stack.callback(llama_cpp.close)
        ours = {
            name: await stack.enter_async_context(_opened(folder, scratch / name, speculation))
            for name, speculation in (("npu-gateway", False), ("npu-gateway, chat_speculation", True))
        }
        yield {
            **{name: NpuGateway(model, end_tokens(folder)) for name, model in ours.items()},
            "llama.cpp": LlamaCpp(llama_cpp, partial(encoder.encode, context_tokens=CONTEXT_TOKENS)),
        }


@contextlib.asynccontextmanager
async def _opened(folder: Path, home: Path, speculation: bool) -> AsyncGenerator[ChatModel]:
    (home / "log").mkdir(parents=True)
    installed = InstalledModel("model", "chat", folder, "", CONTEXT_UNKNOWN, None, "", 0)
    settings = Settings(home=Home(home), chat_speculation=speculation)
    async with ChatModel.open(installed, settings) as model:
        await model.ready()
        yield model


CONTEXT_UNKNOWN = 0
"""The worker tells, once it has loaded the model."""


@dataclass(frozen=True)
class Sizes:
    """In words of prompts, and tokens of answers."""

    prompt_words: int
    history_words: int
    answer_tokens: int
    stream_tokens: int


Measures = dict[str, float]


class Prompts:
    """No two begin alike, so that nothing is remembered but what is meant to be."""

    def __init__(self, repeat: int) -> None:
        self._words = itertools.cycle(" ".join(sorted(set(docstrings()))).split())
        self._numbers = itertools.count(100 * repeat + 1)

    def text(self, words: int) -> str:
        return f"{next(self._numbers)}. " + " ".join(itertools.islice(self._words, words))

    def ask(self, words: int) -> Conversation:
        return (Message("user", f"{self.text(words)}\n\nExplain this."),)

    def ask_to_copy(self, words: int) -> Conversation:
        return (Message("user", f"{self.text(words)}\n\nRepeat this text word for word."),)


async def measure_all(contender: Contender, sizes: Sizes, prompts: Prompts) -> AsyncGenerator[Measures]:
    (cold,) = await contender.run([prompts.ask(sizes.prompt_words)], 1)
    yield {"prompt, first token s": cold.first_seconds}
    (answer,) = await contender.run([prompts.ask(30)], sizes.answer_tokens)
    yield {"decode tokens/s": rate(answer)}
    (copy,) = await contender.run([prompts.ask_to_copy(100)], sizes.answer_tokens)
    yield {"decode tokens/s, told to copy its prompt": rate(copy)}
    history = prompts.ask(sizes.history_words)
    (first_turn,) = await contender.run([history], 1)
    later = (*history, Message("assistant", "I see."), Message("user", "Go on."))
    (second_turn,) = await contender.run([later], 1)
    yield {
        "history, first token s, cold": first_turn.first_seconds,
        "history, first token s, next turn": second_turn.first_seconds,
    }
    for count in (1, 4, 8):
        streams = await contender.run([prompts.ask(20) for _ in range(count)], sizes.stream_tokens)
        total, slowest = max(s.end_seconds for s in streams), max(s.first_seconds for s in streams)
        yield {
            f"{count} streams, tokens/s in all": count * sizes.stream_tokens / total,
            f"{count} streams, last first token s": slowest,
        }


def rate(stream: Stream) -> float:
    return (stream.tokens - 1) / (stream.end_seconds - stream.first_seconds)


async def measure(running: dict[str, Contender], sizes: Sizes, repeats: int) -> dict[str, Measures]:
    """Turn by turn; the best of the repeats."""
    best: dict[str, Measures] = {name: {} for name in running}
    for repeat in range(repeats):
        turns = {name: measure_all(contender, sizes, Prompts(repeat)) for name, contender in running.items()}
        while turns:
            for name, turn in list(turns.items()):
                measures = await anext(turn, None)
                if measures is None:
                    del turns[name]
                    continue
                print(name, {what: round(value, 3) for what, value in measures.items()}, flush=True)
                for what, value in measures.items():
                    better = max if "/s" in what else min
                    best[name][what] = better(value, best[name].get(what, value))
    for name, contender in running.items():
        best[name]["resident MiB"] = contender.rss_bytes() / 2**20
    return best


def report(name: str, best: dict[str, Measures], prompt_tokens: dict[str, int], sizes: Sizes) -> str:
    lengths = ", ".join(f"{what} {count} tokens" for what, count in prompt_tokens.items())
    versions = ", ".join(f"{p} {version(p)}" for p in ("onnxruntime-genai", "llama-cpp-python"))
    lines = [
        f"# Chat on a CPU: {name}, {datetime.date.today()}",
        "",
        f"Machine: {machine()}; {physical_cores()} threads each. Versions: {versions}. Lengths: {lengths}, "
        f"answers {sizes.answer_tokens}, each stream {sizes.stream_tokens}. llama.cpp: Q4_0, float16 keys "
        "and values, one batch for all streams. Contenders took turns; the best of the repeats. "
        "Made by `python -m benchmarks.chat`.",
        "",
        f"| | {' | '.join(best)} |",
        f"|---|{'---|' * len(best)}",
        *(_row(what, best) for what in next(iter(best.values()))),
    ]
    return "\n".join(lines) + "\n"


def _row(what: str, best: dict[str, Measures]) -> str:
    return f"| {what} | {' | '.join(f'{measures[what]:.3g}' for measures in best.values())} |"


def main() -> None:
    options = parser("chat", __doc__)
    options.add_argument("name")
    options.add_argument("folder", type=Path)
    options.add_argument("gguf", type=Path)
    options.add_argument("--prompt-words", type=int, default=330)
    options.add_argument("--history-words", type=int, default=950)
    options.add_argument("--answer-tokens", type=int, default=128)
    options.add_argument("--stream-tokens", type=int, default=64)
    options.add_argument("--repeats", type=int, default=2)
    arguments = options.parse_args()
    sizes = Sizes(
        arguments.prompt_words, arguments.history_words, arguments.answer_tokens, arguments.stream_tokens
    )
    written = asyncio.run(run(arguments.name, arguments.folder, arguments.gguf, sizes, arguments.repeats))
    target = Path(__file__).parent / "results" / f"chat-{arguments.name}-{datetime.date.today()}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(written, encoding="utf-8")
    print(written)


async def run(name: str, folder: Path, gguf: Path, sizes: Sizes, repeats: int) -> str:
    async with contenders(folder, gguf, physical_cores()) as running:
        best = await measure(running, sizes, repeats)
    with _encoder(folder) as encoder:
        lengths = {
            "prompt": len(encoder.encode(Prompts(0).ask(sizes.prompt_words), CONTEXT_TOKENS)),
            "history": len(encoder.encode(Prompts(0).ask(sizes.history_words), CONTEXT_TOKENS)),
        }
    return report(name, best, lengths, sizes)


if __name__ == "__main__":
    main()
