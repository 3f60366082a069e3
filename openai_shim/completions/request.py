"""What /v1/completions is asked."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated

from pydantic import model_validator

from engine.types import ChatRequest, Message
from openai_shim.generation.request import GenerationRequest
from openai_shim.http.errors import WIRE_NAMES, BadParameter, UnsupportedParameter
from openai_shim.tokens.inputs import TextOrTokens, up_to

MAX_TEXTS = 64
"""Answers to one request: as many as may wait for a model."""
DEFAULT_TOKENS = 16
"""OpenAI's default for text completions; chat has none."""


class CompletionRequest(GenerationRequest):
    """The models are chat models: each prompt is asked as a user's message, in the model's own template."""

    idle_values = MappingProxyType({"echo": (False,), "logprobs": (), "suffix": ("",)})
    wire_names = MappingProxyType({**WIRE_NAMES, "messages": "prompt"})

    prompt: Annotated[list[TextOrTokens], up_to(MAX_TEXTS)]
    best_of: int | None = None

    @model_validator(mode="after")
    def _choices_can_be_given(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of != self.choices:
            raise UnsupportedParameter("Of n choices all are given: leave best_of out.", param="best_of")
        if len(self.prompt) * self.choices > MAX_TEXTS:
            raise BadParameter(
                f"{len(self.prompt)} prompts with {self.choices} choices each are more than the "
                f"{MAX_TEXTS} answers that one request may have.",
                param="prompt" if self.choices == 1 else "n",
            )
        return self

    def to_engine(self, prompts: Sequence[str]) -> list[ChatRequest]:
        """prompts: the request's own, as texts."""
        most = self.max_tokens or DEFAULT_TOKENS
        return [
            ChatRequest((Message("user", prompt),), self.model, self.sampling(most, choice=choice))
            for prompt in prompts
            for choice in range(self.choices)
        ]
