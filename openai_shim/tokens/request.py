"""What /tokenize and /detokenize are asked."""

from typing import Annotated

from pydantic import AliasChoices, Field

from openai_shim.http.parsing import RequestModel


class TokenizeRequest(RequestModel):
    """`content` and `add_special` are llama.cpp's names, `prompt` and `add_special_tokens` vLLM's.

    model left out: the default chat model. What looks like a control token of a chat model stays text.
    """

    content: Annotated[str, Field(validation_alias=AliasChoices("content", "prompt"))]
    model: str | None = None
    add_special: Annotated[
        bool | None, Field(validation_alias=AliasChoices("add_special", "add_special_tokens"))
    ] = None


class DetokenizeRequest(RequestModel):
    tokens: list[Annotated[int, Field(ge=0)]]
    model: str | None = None
