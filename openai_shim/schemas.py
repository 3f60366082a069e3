"""The OpenAI wire formats of requests, and how each becomes the engine's own.

A field is honoured, refused by name, or (if the gateway does not know it) ignored and named in the reply. A
known field that the engine cannot honour yet is accepted with a value that asks for nothing, because clients
send such values unasked (`n: 1`, `presence_penalty: 0`), and refused with any other.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.types import ChatRequest, EmbedRequest, InputType, Message, Role, Sampling
from openai_shim.errors import UnsupportedParameter

MAX_INPUTS = 2048
MAX_STOPS = 4
MAX_PROMPTS = 64
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default for text completions; chat has none."""


class WireModel(BaseModel):
    """An object in a request. Strict: OpenAI does not take "5" for 5 either."""

    model_config = ConfigDict(
        strict=True, extra="allow", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    idle_values: ClassVar[Mapping[str, tuple[object, ...]]] = MappingProxyType({})
    """Known fields that are not honoured, with the values (beside null) that ask for nothing."""

    @model_validator(mode="after")
    def _refuse_what_is_not_done(self) -> "WireModel":
        for name, value in (self.model_extra or {}).items():
            if name in self.idle_values and value is not None and value not in self.idle_values[name]:
                raise UnsupportedParameter(
                    f"This gateway does not support '{name}'. Leave it out.", param=name
                )
        return self

    def ignored(self) -> Iterator[str]:
        """Dotted names of the fields, here and in nested objects, that had no effect."""
        yield from (name for name in self.model_extra or {} if name not in self.idle_values)
        for name in type(self).model_fields:
            value = getattr(self, name)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, WireModel):
                    yield from (f"{name}.{inner}" for inner in item.ignored())


def _texts_or_tokens(value: object) -> object:
    """One input becomes a list of one, so that the field has a single shape."""
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        value = [value]
    if not isinstance(value, list) or not all(_is_input(item) for item in value):
        raise PydanticCustomError(
            "input_type", "must be a string, a list of strings, a list of token ids or a list of those"
        )
    if not 1 <= len(value) <= MAX_INPUTS:
        raise PydanticCustomError("input_count", f"must have 1 to {MAX_INPUTS} inputs, not {len(value)}")
    for index, item in enumerate(value):
        if not item:
            raise PydanticCustomError("input_empty", f"must not be empty, but input {index} is")
    return value


def _is_input(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, list) and all(type(i) is int and i >= 0 for i in item))


class EmbeddingRequest(WireModel):
    """model left out: the default one. input_type is ours; a suffix of the model's name says the same."""

    input: Annotated[list[str | list[int]], BeforeValidator(_texts_or_tokens)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    input_type: InputType | None = None

    def to_engine(self) -> EmbedRequest:
        model, suffix = _split_input_type(self.model)
        return EmbedRequest(
            inputs=tuple(item if isinstance(item, str) else tuple(item) for item in self.input),
            model=model,
            input_type=self.input_type or suffix or "document",
            dimensions=self.dimensions,
        )


def _split_input_type(model: str | None) -> tuple[str | None, InputType | None]:
    """`bge-small-en-v1.5:query` embeds questions: OpenAI clients can name a model but set no field."""
    if model and model.endswith(":query"):
        return model.removesuffix(":query"), "query"
    if model and model.endswith(":document"):
        return model.removesuffix(":document"), "document"
    return model, None


def _text(value: object) -> object:
    """Content may come as a list of parts; those of type text are joined, others refused by name."""
    if not isinstance(value, list):
        return value
    texts = []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text":
            raise PydanticCustomError("part", f"part {index} is of type {kind!r}; this model reads text only")
        if not isinstance(text, str):
            raise PydanticCustomError("part", f"part {index} has no text")
        texts.append(text)
    return "\n".join(texts)


class ChatMessage(WireModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | None, BeforeValidator(_text)] = None

    @model_validator(mode="after")
    def _only_the_assistant_may_be_silent(self) -> "ChatMessage":
        """An assistant's turn that only called tools has no content."""
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("missing_content", f"content is required for the role {self.role!r}")
        return self

    def to_engine(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        return Message(role, self.content or "")


class StreamOptions(WireModel):
    include_usage: bool | None = None


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Stops = Annotated[
    list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOPS), BeforeValidator(_listed)
]
TokenCount = Annotated[int, Field(ge=1)]


class GenerationRequest(WireModel):
    """What chat and text completions share."""

    idle_values = MappingProxyType(
        {
            "best_of": (1,),
            "frequency_penalty": (0,),
            "logit_bias": ({},),
            "n": (1,),
            "presence_penalty": (0,),
        }
    )

    model: str | None = None
    max_tokens: TokenCount | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def _sampling(self, max_tokens: int | None) -> Sampling:
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=tuple(self.stop or ()),
        )


class ChatCompletionRequest(GenerationRequest):
    """max_completion_tokens is the newer name of max_tokens; it wins when both are given."""

    idle_values = MappingProxyType(
        {
            **GenerationRequest.idle_values,
            "audio": (),
            "function_call": ("none", "auto"),
            "functions": ([],),
            "logprobs": (False,),
            "modalities": (["text"],),
            "parallel_tool_calls": (True, False),
            "response_format": ({"type": "text"},),
            "tool_choice": ("none", "auto"),
            "tools": ([],),
            "top_logprobs": (0,),
            "web_search_options": (),
        }
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: TokenCount | None = None

    def to_engine(self) -> ChatRequest:
        return ChatRequest(
            messages=tuple(message.to_engine() for message in self.messages),
            model=self.model,
            sampling=self._sampling(self.max_completion_tokens or self.max_tokens),
        )


def _prompts(value: object) -> object:
    prompts = _listed(value)
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise PydanticCustomError("prompt_type", "must be a string or a list of strings")
    return prompts


class CompletionRequest(GenerationRequest):
    """The models are chat models: each prompt is asked as a user's message, in the model's own template."""

    idle_values = MappingProxyType(
        {**GenerationRequest.idle_values, "echo": (False,), "logprobs": (), "suffix": ("",)}
    )

    prompt: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_PROMPTS),
        BeforeValidator(_prompts),
    ]

    @model_validator(mode="after")
    def _stream_one(self) -> "CompletionRequest":
        if self.stream and len(self.prompt) > 1:
            raise UnsupportedParameter("A stream answers one prompt. Send each by itself.", param="prompt")
        return self

    def to_engine(self) -> list[ChatRequest]:
        sampling = self._sampling(self.max_tokens or DEFAULT_COMPLETION_TOKENS)
        return [ChatRequest((Message("user", prompt),), self.model, sampling) for prompt in self.prompt]
