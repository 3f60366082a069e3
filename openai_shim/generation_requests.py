"""The OpenAI wire formats of requests for text: chat and text completions."""

from types import MappingProxyType
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.errors import BadInput
from engine.types import ChatRequest, Message, Sampling
from openai_shim.errors import UnsupportedParameter
from openai_shim.messages import AnswerFormat, ChatMessage, ToolChoice, ToolDefinition, tool_use
from openai_shim.wire import WireModel

MAX_STOPS = 4
MAX_PROMPTS = 64
MAX_CHOICES = 8
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default for text completions; chat has none."""


class StreamOptions(WireModel):
    include_usage: bool | None = None


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Stops = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]
TokenCount = Annotated[int, Field(ge=1)]
TokenId = Annotated[int, Field(ge=0)]


class GenerationRequest(WireModel):
    """What chat and text completions share. top_k, min_p and repetition_penalty are vLLM's, not OpenAI's."""

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
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def _sampling(
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


class ChatCompletionRequest(GenerationRequest):
    """max_completion_tokens is the newer name of max_tokens; it wins when both are given."""

    idle_values = MappingProxyType(
        {
            "audio": (),
            "function_call": ("none", "auto"),
            "functions": ([],),
            "modalities": (["text"],),
            "web_search_options": (),
        }
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: TokenCount | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: AnswerFormat = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "ChatCompletionRequest":
        if self.stream and (self.n or 1) > 1:
            raise UnsupportedParameter(
                "A stream carries one choice. Do not stream, or leave n out.", param="n"
            )
        if self.top_logprobs and not self.logprobs:
            raise BadInput("top_logprobs needs logprobs: true.", param="top_logprobs")
        return self

    def to_engine(self) -> list[ChatRequest]:
        """One request for each choice. Raises BadInput."""
        messages = tuple(message.to_engine() for message in self.messages)
        functions = [tool.function for tool in self.tools or ()]
        tools = tool_use(functions, self.tool_choice, self.parallel_tool_calls)
        return [
            ChatRequest(messages, self.model, self._chat_sampling(choice), self.response_format, tools)
            for choice in range(self.n or 1)
        ]

    def _chat_sampling(self, choice: int) -> Sampling:
        return self._sampling(
            self.max_completion_tokens or self.max_tokens,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            choice=choice,
        )


def _prompts(value: object) -> object:
    prompts = _listed(value)
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise PydanticCustomError("prompt_type", "must be a string or a list of strings")
    return prompts


class CompletionRequest(GenerationRequest):
    """The models are chat models: each prompt is asked as a user's message, in the model's own template."""

    idle_values = MappingProxyType(
        {"best_of": (1,), "echo": (False,), "logprobs": (), "n": (1,), "suffix": ("",)}
    )

    prompt: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_PROMPTS),
        BeforeValidator(_prompts, json_schema_input_type=str | list[str]),
    ]

    @model_validator(mode="after")
    def _stream_one_prompt(self) -> "CompletionRequest":
        if self.stream and len(self.prompt) > 1:
            raise UnsupportedParameter("A stream answers one prompt. Send each by itself.", param="prompt")
        return self

    def to_engine(self) -> list[ChatRequest]:
        sampling = self._sampling(self.max_tokens or DEFAULT_COMPLETION_TOKENS)
        return [ChatRequest((Message("user", prompt),), self.model, sampling) for prompt in self.prompt]
