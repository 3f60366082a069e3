"""The OpenAI wire formats of requests for text: chat and text completions."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from engine.errors import BadInput
from engine.types import ChatRequest, Message, ModelStatus, Sampling, ToolUse
from openai_shim.chat.messages import (
    AnswerFormat,
    ChatMessage,
    FunctionChoice,
    FunctionDefinition,
    ToolChoice,
    ToolDefinition,
    tool_use,
)
from openai_shim.chat.reply import ChatAnswer, FunctionAnswer, TextAnswer
from openai_shim.http.context import Operation
from openai_shim.http.errors import UnsupportedParameter
from openai_shim.http.wire import WireModel
from openai_shim.tokens.inputs import TextOrTokens, up_to

MAX_STOPS = 4
MAX_CHOICES = 8
MAX_TEXTS = 64
"""Answers to one request for text completions: as many as may wait for a model."""
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

    operation: ClassVar[Operation] = "chat"

    idle_values = MappingProxyType(
        {
            "audio": (),
            "modalities": (["text"],),
            "web_search_options": (),
        }
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: AnswerFormat = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = None
    function_call: FunctionChoice = None

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "ChatCompletionRequest":
        if self.tools and self.functions:
            raise BadInput("functions are the older form of tools. Send one of the two.", param="functions")
        if self.top_logprobs and not self.logprobs:
            raise BadInput("top_logprobs needs logprobs: true.", param="top_logprobs")
        return self

    def to_engine(self) -> list[ChatRequest]:
        """One request for each choice. Raises BadInput."""
        messages = tuple(message.to_engine() for message in self.messages)
        tools = self._tool_use()
        return [
            ChatRequest(messages, self.model, self._chat_sampling(choice), self.response_format, tools)
            for choice in range(self.choices)
        ]

    def answer_by(self, model: ModelStatus) -> ChatAnswer:
        kind = FunctionAnswer if self.functions else ChatAnswer
        return kind.by(model, choices=self.choices, per_prompt=self.choices)

    def _tool_use(self) -> ToolUse | None:
        tools = tool_use(
            [tool.function for tool in self.tools or ()],
            self.tool_choice,
            parallel=self.parallel_tool_calls is not False,
        )
        functions = tool_use(
            self.functions or (), self.function_call, parallel=False, choice_field="function_call"
        )
        return tools or functions

    def _chat_sampling(self, choice: int) -> Sampling:
        return self._sampling(
            self.max_completion_tokens or self.max_tokens,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            choice=choice,
        )


class CompletionRequest(GenerationRequest):
    """The models are chat models: each prompt is asked as a user's message, in the model's own template."""

    operation: ClassVar[Operation] = "text_completion"

    idle_values = MappingProxyType({"echo": (False,), "logprobs": (), "suffix": ("",)})

    prompt: Annotated[list[TextOrTokens], up_to(MAX_TEXTS)]
    best_of: int | None = None

    @model_validator(mode="after")
    def _choices_can_be_given(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of != self.choices:
            raise UnsupportedParameter("Of n choices all are given: leave best_of out.", param="best_of")
        if len(self.prompt) * self.choices > MAX_TEXTS:
            raise BadInput(
                f"{len(self.prompt)} prompts with {self.choices} choices each are more than the "
                f"{MAX_TEXTS} answers that one request may have.",
                param="prompt" if self.choices == 1 else "n",
            )
        return self

    def to_engine(self, prompts: Sequence[str]) -> list[ChatRequest]:
        """prompts: the request's own, as texts."""
        most = self.max_tokens or DEFAULT_COMPLETION_TOKENS
        return [
            ChatRequest((Message("user", prompt),), self.model, self._sampling(most, choice=choice))
            for prompt in prompts
            for choice in range(self.choices)
        ]

    def answer_by(self, model: ModelStatus) -> TextAnswer:
        return TextAnswer.by(model, choices=len(self.prompt) * self.choices, per_prompt=self.choices)
