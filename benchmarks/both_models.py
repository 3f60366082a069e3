"""An embedding and a chat model at work together: how much they slow each other, and their memory (Linux).

    python -m benchmarks.both_models --chat phi-3-mini-4k-instruct

Both models of the gateway's home run with one thread each, free to use all cores. Embeddings are measured
alone and while the chat model decodes, chat alone and while texts are embedded, by turns. Then one
conversation fills the chat model's context, and the resident memory of all processes is added up.
"""

import asyncio
import os
import time
from collections.abc import Sequence

import psutil

from benchmarks.support.arguments import parser
from benchmarks.support.corpora import corpora
from benchmarks.support.machine import machine
from engine.engine import Engine
from engine.settings import Settings
from engine.types import ChatPiece, ChatRequest, EmbedRequest, Message, Sampling

TEXTS_PER_REQUEST = 32
STORY = "Tell me a very long story about a fox, a lake and a lighthouse."


async def main() -> None:
    options = parser("both_models", __doc__)
    options.add_argument("--chat", default="smollm2-135m-instruct")
    options.add_argument("--seconds", type=float, default=15)
    options.add_argument("--repeats", type=int, default=3)
    arguments = options.parse_args()
    settings = Settings.load(chat=arguments.chat, device="cpu", embedding_cache_mb=0)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # so that each worker starts with one thread
    async with Engine.start(settings) as engine:
        await engine.load(settings.embed)
        await engine.load(arguments.chat)
        for process in everything():
            process.cpu_affinity(list(cores))
        print(f"{machine()}; {arguments.chat} and {settings.embed}, one thread each")
        for _ in range(arguments.repeats):
            await compare(engine, arguments.seconds)
        await fill(engine, engine.model(arguments.chat).context_tokens or 0)
        report_memory()


def everything() -> list[psutil.Process]:
    here = psutil.Process()
    return [here, *here.children(recursive=True)]


async def compare(engine: Engine, seconds: float) -> None:
    embedding_alone = await embed(engine, seconds)
    chat_alone = await decode(engine, seconds)
    embedding, chat = await asyncio.gather(embed(engine, seconds), decode(engine, seconds))
    print(
        f"embeddings {embedding_alone:.1f} texts/s alone, {embedding:.1f} beside chat "
        f"({embedding / embedding_alone:.0%}); chat {chat_alone:.1f} tokens/s alone, {chat:.1f} beside "
        f"embeddings ({chat / chat_alone:.0%})"
    )


async def embed(engine: Engine, seconds: float) -> float:
    """Texts per second, mixed lengths, one request after another."""
    texts = corpora().mixed
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        first = done % (len(texts) - TEXTS_PER_REQUEST)
        await engine.embed(EmbedRequest(texts[first : first + TEXTS_PER_REQUEST], on_overflow="truncate"))
        done += TEXTS_PER_REQUEST
    return done / (time.perf_counter() - started)


async def decode(engine: Engine, seconds: float) -> float:
    """Tokens per second of answers, one after another, without the time to read their short prompt."""
    tokens, spent, started = 0, 0.0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        times = await answer(engine, (Message("user", STORY),), max_tokens=100)
        tokens += len(times) - 1
        spent += times[-1] - times[0]
    return tokens / spent


async def answer(engine: Engine, messages: Sequence[Message], max_tokens: int) -> list[float]:
    """When each piece of it came."""
    request = ChatRequest(tuple(messages), sampling=Sampling(max_tokens=max_tokens, temperature=0.7, seed=1))
    return [time.perf_counter() async for event in engine.chat(request) if isinstance(event, ChatPiece)]


async def fill(engine: Engine, context_tokens: int) -> None:
    """A conversation of nearly the whole context: " fox" is one token."""
    prompt = STORY + " fox" * (context_tokens - 150)
    request = ChatRequest((Message("user", prompt),), sampling=Sampling(max_tokens=50, temperature=0))
    usage = (await engine.complete(request)).usage
    print(f"a conversation of {usage.prompt_tokens + usage.completion_tokens} of {context_tokens} tokens")


def report_memory() -> None:
    total_rss = total_pss = 0
    for process in everything():
        memory = process.memory_full_info()
        total_rss, total_pss = total_rss + memory.rss, total_pss + memory.pss
        print(f"{memory.rss / 2**20:7.0f} MiB  {' '.join(process.cmdline())[-70:]}")
    print(
        f"{total_rss / 2**30:.2f} GiB in all, {total_pss / 2**30:.2f} GiB with what they share counted once"
    )


if __name__ == "__main__":
    asyncio.run(main())
