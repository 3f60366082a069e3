"""What requests for chat and for text completions have in common."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from engine.types import Sampling
from openai_shim.http.parsing import RequestModel

MAX_STOPS = 4
MAX_CHOICES = 8


class StreamOptions(RequestModel):
    include_usage: bool | None = None


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Stops = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]
TokenCount = Annotated[int, Field(ge=1, lt=2**63)]
TokenId = Annotated[int, Field(ge=0)]


class GenerationRequest(RequestModel):
    """top_k, min_p and repetition_penalty are vLLM's, not OpenAI's."""

    model: str | None = None
    max_tokens: TokenCount | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def choices(self) -> int:
        """For each prompt."""
        return self.n or 1

    @property
    def wants_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(
        self, max_tokens: int | None, *, top_logprobs: int | None = None, choice: int = 0
    ) -> Sampling:
        """choice: its number among several that are wanted; each has its own seed."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=None if self.seed is None else (self.seed + choice) % 2**64,  # the engine's have no sign
            stop=tuple(self.stop or ()),
            top_k=self.top_k if self.top_k and self.top_k > 0 else None,  # 0 and -1 turn it off, as in vLLM
            min_p=self.min_p or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            logit_bias=tuple((self.logit_bias or {}).items()),
            top_logprobs=top_logprobs,
        )
