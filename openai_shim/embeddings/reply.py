"""What /v1/embeddings answers."""

import base64
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import GetPydanticSchema
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import Embeddings

Vector = Annotated[NDArray[np.float32], GetPydanticSchema(lambda _, schema_of: schema_of(list[float]))]
"""A list of numbers by the time it is read: orjson writes rows."""


class Embedding(TypedDict):
    """embedding: base64 of little-endian float32 if encoding_format asks for it."""

    object: Literal["embedding"]
    index: int
    embedding: Vector | str


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def embedding_list(result: Embeddings, *, as_base64: bool) -> EmbeddingList:
    tokens = sum(result.token_counts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _base64(row) if as_base64 else row}
            for index, row in enumerate(np.ascontiguousarray(result.vectors))
        ],
        "model": result.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _base64(row: NDArray[np.float32]) -> str:
    """float32, little-endian, no header: what OpenAI's clients decode."""
    return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode()
