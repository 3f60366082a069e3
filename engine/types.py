"""The values that cross the engine's borders. All frozen; none does any work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the MCP process reads this module and must not load numpy
    import numpy as np
    from numpy.typing import NDArray

Device = Literal["npu", "cpu"]
ModelKind = Literal["embedding", "chat"]
ModelState = Literal["loading", "ready", "failed", "unloaded"]
InputType = Literal["query", "document"]
Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class EmbedRequest:
    """Texts (or already tokenised texts, in the model's own vocabulary) to turn into vectors.

    model: id of an installed embedding model; None asks for the default one.
    input_type: "query" puts the model's retrieval instruction in front of each text.
    dimensions: keep the first so many numbers of each vector and renormalise; None keeps all.
    on_overflow: what to do with a text longer than the model reads.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    model: str | None = None
    input_type: InputType = "document"
    dimensions: int | None = None
    on_overflow: Literal["error", "truncate"] = "error"


@dataclass(frozen=True)
class Embeddings:
    """vectors: float32 [inputs, dimensions], each row of length 1, in the order of the inputs.

    token_counts: tokens read per input, special tokens included, after any truncation.
    truncated: indexes of the inputs that were cut.
    devices: what really ran, in the order of first use.
    """

    model: str
    vectors: NDArray[np.float32]
    token_counts: tuple[int, ...]
    truncated: tuple[int, ...] = ()
    devices: tuple[Device, ...] = ("cpu",)
    npu_emulated: bool = False


@dataclass(frozen=True)
class ToolCall:
    """arguments: a JSON object, as text; in an earlier turn, any text that was taken for one."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """tool_calls: what the assistant asked for. tool_call_id: which of these calls a tool message answers."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True)
class Tool:
    """parameters: the JSON Schema of the arguments, an object.

    strict: refuse a schema that the arguments cannot be held to, instead of loosening it.
    """

    name: str
    description: str
    parameters: str
    strict: bool = False


@dataclass(frozen=True)
class ToolUse:
    """choice: "required" means at least one call.

    only: the name of the one tool that must be called; wins over choice.
    parallel: several calls in one answer.
    """

    tools: tuple[Tool, ...]
    choice: Literal["auto", "none", "required"] = "auto"
    only: str | None = None
    parallel: bool = True


@dataclass(frozen=True)
class JsonFormat:
    """The answer is one JSON document. schema: its JSON Schema; None allows any object."""

    schema: str | None = None


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The defaults leave the model's probabilities as they are.

    max_tokens: None for as many as the settings allow.
    temperature: 0 is greedy.
    top_p, top_k, min_p: consider only the fewest most likely tokens that reach this probability together,
        only so many, only those at least this likely relative to the most likely one.
    presence_penalty, frequency_penalty: taken from the logit of a generated token, once and per occurrence.
    repetition_penalty: divides the logits of all tokens of the prompt and the answer (Keskar et al. 2019).
    logit_bias: (token id, what to add to its logit).
    top_logprobs: report the probability of each chosen token, and of so many most likely ones beside it.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class ChatRequest:
    messages: tuple[Message, ...]
    model: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    json_format: JsonFormat | None = None
    tool_use: ToolUse | None = None


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class ChatStarted:
    """First event of every chat: the request was admitted, this model answers, nothing is generated yet.

    revision: of the model; None where it is not known.
    loosened: what schemas of tools ask for and the answer is not held to, such as "get_weather: city.format".
    """

    model: str
    device: Device
    revision: str | None = None
    loosened: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenLogprob:
    """logprob: natural logarithm of the probability that the model gave this token, before any sampling."""

    token: bytes
    logprob: float


@dataclass(frozen=True)
class ChosenLogprob:
    """The token that was chosen, and the most likely ones at its place."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class ChatPiece:
    """Some whole characters of the answer. logprobs: of its tokens, if they were asked for."""

    text: str
    logprobs: tuple[ChosenLogprob, ...] = ()


@dataclass(frozen=True)
class ChatFinished:
    """Last event of every chat that was not cancelled. queue_seconds: until its prompt began to be read."""

    finish_reason: FinishReason
    usage: Usage
    queue_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class ChatToolCall:
    """The assistant wants a tool to be called."""

    call: ToolCall


ChatEvent = ChatStarted | ChatPiece | ChatToolCall | ChatFinished


@dataclass(frozen=True)
class Completion:
    """A whole answer: the events of one chat, folded. revision, loosened: as in ChatStarted."""

    model: str
    device: Device
    text: str
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[ChosenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    queue_seconds: float = field(default=0.0, compare=False)
    revision: str | None = None
    loosened: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceWork:
    """What one device has done for one embedding model. The times are of its batches: planned, and real.

    up_to_tokens: the bucket of the longest text in the batches counted here.
    queue_seconds: that these texts waited, each until its batch began, added up.
    """

    device: Device
    up_to_tokens: int
    batches: int
    texts: int
    tokens: int
    failed_batches: int
    expected_seconds: float
    actual_seconds: float
    queue_seconds: float = 0.0


@dataclass(frozen=True)
class EmbeddingWork:
    """Of one loaded embedding model. Cache counts: texts whose vectors were known, and were not."""

    model: str
    devices: tuple[DeviceWork, ...]
    cache_hits: int
    cache_misses: int


@dataclass(frozen=True)
class NpuStatus:
    available: bool
    emulated: bool
    name: str | None
    reason: str | None


@dataclass(frozen=True)
class ModelStatus:
    """context_tokens: the most tokens one input (embedding) or one prompt and its answer (chat) may have.

    requests, tokens: since the gateway started. tokens_per_second: read and generated in the last minute,
    divided by that minute. installed_at: Unix seconds; None while it is not.
    """

    id: str
    kind: ModelKind
    state: ModelState
    device: Device | None
    revision: str | None
    detail: str | None
    context_tokens: int
    dimensions: int | None
    rss_bytes: int
    requests: int
    tokens: int
    tokens_per_second: float = 0.0
    installed_at: int | None = None


@dataclass(frozen=True)
class MemoryStatus:
    rss_bytes: int


@dataclass(frozen=True)
class QueueStatus:
    embedding: int
    chat: int


@dataclass(frozen=True)
class Health:
    status: Literal["ok", "loading", "degraded"]
    version: str
    uptime_seconds: float
    npu: NpuStatus
    models: tuple[ModelStatus, ...]
    memory: MemoryStatus
    queue: QueueStatus
