"""What the tools return: flat values with the facts a model needs to judge them, and the same as text."""

import json
from collections.abc import Iterable, Mapping
from operator import mul
from types import MappingProxyType
from typing import Literal

from mcp.types import CallToolResult, ContentBlock, ResourceLink, TextContent
from pydantic import BaseModel, ConfigDict, Field

from engine.remote.client import RemoteEmbeddings
from mcp_server.files import MIME_TYPE, VectorFile

Output = Literal["summary", "similarities", "vectors", "file"]
VECTOR_DECIMALS = 6
COSINE_DECIMALS = 3
EMBED_NOTES: Mapping[Output, str] = MappingProxyType(
    {
        "summary": "Ask for output='similarities', 'vectors' or 'file' to see more.",
        "similarities": "Row i, column j: the cosine of texts i and j.",
        "file": 'Each line of the file: {"text": ..., "vector": [...]}.',
    }
)


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
    file: str = Field(description="Path of the JSON Lines file that was written, if asked for.")
    note: str = Field(description="How to read the result or what to do next, or empty.")


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


def embed_result(
    reply: RemoteEmbeddings, output: Output, written: VectorFile | None = None
) -> CallToolResult:
    """written: where the vectors are, for the output "file"."""
    result = EmbedResult(
        model=reply.model,
        dimensions=len(reply.vectors[0]),
        count=len(reply.vectors),
        total_tokens=reply.total_tokens,
        devices=list(reply.devices),
        npu_emulated=reply.npu_emulated,
        similarities=_cosines(reply.vectors) if output == "similarities" else [],
        vectors=_rounded(reply.vectors, VECTOR_DECIMALS) if output == "vectors" else [],
        file=str(written.path) if written else "",
        note=EMBED_NOTES.get(output, ""),
    )
    ran_on = " and ".join(result.devices) + (" (emulated)" if result.npu_emulated else "")
    count = "1 vector" if result.count == 1 else f"{result.count} vectors"
    facts = (
        f"{count} of {result.dimensions} numbers from {result.model} on {ran_on}, "
        f"{result.total_tokens} tokens read. {result.note}"
    )
    rows = result.similarities or result.vectors
    blocks: list[ContentBlock] = [_text(facts.strip()), *(_text(json.dumps(row)) for row in rows)]
    if written:
        blocks += [_text(result.file), _link(written, result)]
    return _result(result, *blocks)


def complete_result(result: CompleteResult) -> CallToolResult:
    tokens = (
        "token counts unknown"
        if result.completion_tokens is None
        else f"{result.prompt_tokens} prompt tokens, {result.completion_tokens} generated"
    )
    facts = (
        f"[{result.model} on {result.device}; finish_reason {result.finish_reason}; {tokens}] {result.note}"
    )
    return _result(result, _text(result.text), _text(facts.strip()))


def _cosines(vectors: tuple[tuple[float, ...], ...]) -> list[list[float]]:
    """Unit vectors: the cosine is the inner product."""
    return _rounded([[sum(map(mul, one, other)) for other in vectors] for one in vectors], COSINE_DECIMALS)


def _rounded(rows: Iterable[Iterable[float]], decimals: int) -> list[list[float]]:
    return [[round(number, decimals) for number in row] for row in rows]


def _link(written: VectorFile, result: EmbedResult) -> ResourceLink:
    return ResourceLink(
        uri=written.uri,
        name=written.path.name,
        description="The texts with their vectors, one JSON object per line",
        mime_type=MIME_TYPE,
        size=written.size_bytes,
    )


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _result(structured: EmbedResult | CompleteResult, *blocks: ContentBlock) -> CallToolResult:
    """The same facts twice: some clients show a model only the structured part, some only the text."""
    return CallToolResult(content=list(blocks), structured_content=structured.model_dump())
