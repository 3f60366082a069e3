"""What the tools return: flat values with the facts a model needs to judge them, and the same as text."""

import json
from collections.abc import Iterable
from operator import mul
from typing import Literal

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from engine.client import RemoteEmbeddings

Output = Literal["summary", "similarities", "vectors"]
VECTOR_DECIMALS = 6
COSINE_DECIMALS = 3


class EmbedResult(BaseModel):
    model_config = ConfigDict(frozen=True)

    model: str
    dimensions: int = Field(description="Numbers per vector.")
    count: int = Field(description="Texts embedded.")
    total_tokens: int = Field(description="Tokens read, all texts together.")
    devices: list[Literal["npu", "cpu"]] = Field(description="What ran the work.")
    npu_emulated: bool = Field(description="True if 'npu' was the software emulator.")
    similarities: list[list[float]] = Field(
        description="Row i, column j: cosine of texts i and j, if asked for."
    )
    vectors: list[list[float]] = Field(description="Unit vectors in the order of the texts, if asked for.")
    note: str = Field(description="What to do next, or empty.")


class CompleteResult(BaseModel):
    model_config = ConfigDict(frozen=True)

    text: str = Field(description="The generated text.")
    model: str
    device: Literal["npu", "cpu"] = Field(description="What ran the work.")
    finish_reason: Literal["stop", "length", "deadline"] = Field(
        description="stop: complete. length: cut at max_tokens. deadline: cut after 50 seconds."
    )
    prompt_tokens: int | None = Field(description="Null if unknown, after a deadline.")
    completion_tokens: int | None = Field(description="Null if unknown, after a deadline.")
    note: str = Field(description="What to do next, or empty.")


def embed_result(reply: RemoteEmbeddings, output: Output) -> CallToolResult:
    result = EmbedResult(
        model=reply.model,
        dimensions=len(reply.vectors[0]),
        count=len(reply.vectors),
        total_tokens=reply.total_tokens,
        devices=list(reply.devices),
        npu_emulated=reply.npu_emulated,
        similarities=_cosines(reply.vectors) if output == "similarities" else [],
        vectors=_rounded(reply.vectors, VECTOR_DECIMALS) if output == "vectors" else [],
        note="Ask for output='similarities' or 'vectors' to see more." if output == "summary" else "",
    )
    ran_on = " and ".join(result.devices) + (" (emulated)" if result.npu_emulated else "")
    count = "1 vector" if result.count == 1 else f"{result.count} vectors"
    facts = (
        f"{count} of {result.dimensions} numbers from {result.model} on {ran_on}, "
        f"{result.total_tokens} tokens read. {result.note}"
    )
    rows = result.similarities or result.vectors
    return _result(result, facts.strip(), *(json.dumps(row) for row in rows))


def complete_result(result: CompleteResult) -> CallToolResult:
    tokens = (
        "token counts unknown"
        if result.completion_tokens is None
        else f"{result.prompt_tokens} prompt tokens, {result.completion_tokens} generated"
    )
    facts = (
        f"[{result.model} on {result.device}; finish_reason {result.finish_reason}; {tokens}] {result.note}"
    )
    return _result(result, result.text, facts.strip())


def _cosines(vectors: tuple[tuple[float, ...], ...]) -> list[list[float]]:
    """Unit vectors: the cosine is the inner product."""
    return _rounded([[sum(map(mul, one, other)) for other in vectors] for one in vectors], COSINE_DECIMALS)


def _rounded(rows: Iterable[Iterable[float]], decimals: int) -> list[list[float]]:
    return [[round(number, decimals) for number in row] for row in rows]


def _result(structured: EmbedResult | CompleteResult, *texts: str) -> CallToolResult:
    """The same facts twice: some clients show a model only the structured part, some only the text."""
    return CallToolResult(
        content=[TextContent(type="text", text=text) for text in texts],
        structured_content=structured.model_dump(),
    )
