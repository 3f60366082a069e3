"""What a benchmark measured. Every number comes from a clock or from the operating system."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.types import Device


@dataclass(frozen=True)
class MeasuredMachine:
    """load_average: processes that wanted a core in the minute before; None on Windows."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    load_average: float | None
    npu: str | None


@dataclass(frozen=True)
class LengthSpeed:
    """Texts of one length on one device.

    tokens: per text, special ones included. The texts are token ids already.
    single_*: of a request with one text, from call to vector. singles, batches: how many were timed.
    texts_per_second, tokens_per_second: of the median request with many texts.
    """

    device: Device
    emulated: bool
    tokens: int
    single_p50_ms: float
    single_p95_ms: float
    singles: int
    texts_per_second: float
    tokens_per_second: float
    batches: int


@dataclass(frozen=True)
class CorpusSpeed:
    """Docstrings of all lengths, tokenising included. devices: what ran; short ones may not fill an NPU."""

    devices: tuple[Device, ...]
    emulated: bool
    texts: int
    tokens: int
    texts_per_second: float
    tokens_per_second: float


@dataclass(frozen=True)
class ChatSpeed:
    """prompt_tokens: of the long prompt, without those that were still in the cache; medians over runs.

    first_token_ms: from call to first text, for a prompt of a few words.
    prefill_tokens_per_second: prompt_tokens by the time to the first text.
    decode_tokens_per_second: over the decode_tokens that followed the first text.
    """

    model: str
    device: Device
    first_token_ms: float
    prompt_tokens: int
    prefill_tokens_per_second: float
    decode_tokens: int
    decode_tokens_per_second: float


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of a process after its measurements."""

    process: str
    rss_bytes: int


@dataclass(frozen=True)
class BenchReport:
    """notes: what was not measured, and why."""

    date: str
    quick: bool
    machine: MeasuredMachine
    versions: Mapping[str, str]
    embedding_model: str
    lengths: tuple[LengthSpeed, ...]
    corpus: tuple[CorpusSpeed, ...]
    chat: ChatSpeed
    resident: tuple[ProcessMemory, ...]
    notes: tuple[str, ...]
