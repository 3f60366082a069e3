"""The tools. Their docstrings and argument descriptions are the user interface: a model reads them."""

import inspect
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from types import MappingProxyType
from typing import Annotated, Literal

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import BeforeValidator, Field

from engine.errors import EngineError, Unavailable
from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    EmbedRequest,
    Health,
    JsonFormat,
    Message,
    Sampling,
)
from mcp_server.app import App
from mcp_server.results import CompleteResult, EmbedResult, Output, complete_result, embed_result

MAX_TEXTS = 64
MAX_SHOWN: Mapping[Output, int] = MappingProxyType(
    {"summary": MAX_TEXTS, "similarities": 32, "vectors": 8, "file": MAX_TEXTS}
)
"""Clients cut results near 25,000 tokens: 8 vectors of 384 numbers take 12,000, 32 x 32 cosines 4,000."""
DEADLINE_SECONDS = 50.0
"""Many MCP clients give up on a call after 60 seconds and would throw a nearly finished answer away."""
PROGRESS_SECONDS = 0.5
MAX_SCHEMA_CHARACTERS = 20_000

AppContext = Context[App]


def _as_text(schema: object) -> object:
    """Models that are asked for a schema as text write it as an object all the same."""
    return json.dumps(schema, ensure_ascii=False) if isinstance(schema, dict) else schema


def add_tools(server: MCPServer[App]) -> None:
    """Read-only although embed can write a file: in the gateway's own folder, and only as its result."""
    local = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool, title in ((embed, "Embed texts"), (complete, "Complete a prompt"), (health, "Gateway health")):
        description = inspect.getdoc(tool)
        server.add_tool(tool, title=title, description=description, annotations=local, structured_output=True)


async def embed(
    texts: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_TEXTS, description="1 to 64 texts, each up to 512 tokens."),
    ],
    ctx: AppContext,
    input_type: Annotated[
        Literal["document", "query"],
        Field(description="'query' for a search question, 'document' for what is searched."),
    ] = "document",
    output: Annotated[
        Output,
        Field(
            description="'summary': facts only. 'similarities': cosine of every two texts, at most 32 texts. "
            "'vectors': the numbers, about 1,500 tokens per text, at most 8 texts. 'file': texts and numbers "
            "go to a JSON Lines file on this computer, and you get its path."
        ),
    ] = "summary",
) -> Annotated[CallToolResult, EmbedResult]:
    """Turn texts into embedding vectors on this computer; nothing leaves it and it costs nothing.

    To find out which texts mean the same or which fits a question best, ask for output='similarities'. If a
    program is to work with the numbers, ask for output='file'; for output='vectors' only if you must see
    them. Takes milliseconds per short text. For thousands of texts, let a program call the gateway's
    OpenAI-compatible route POST /v1/embeddings instead.
    """
    limit = MAX_SHOWN[output]
    if len(texts) > limit:
        raise ToolError(
            f"The {output} of {len(texts)} texts do not fit into one result; send at most {limit} texts with "
            f"output='{output}', ask for output='file', or let a program call the gateway's POST "
            "/v1/embeddings (`npu-gateway status` shows its address)."
        )
    app = _app(ctx)
    with tool_errors():
        reply = await app.gateway.embed(EmbedRequest(tuple(texts), input_type=input_type))
        written = app.files.write(texts, reply.vectors) if output == "file" else None
    return embed_result(reply, output, written)


async def complete(
    prompt: Annotated[str, Field(min_length=1, description="What to answer, in plain text.")],
    ctx: AppContext,
    system: Annotated[str, Field(description="Instructions for the model, or empty.")] = "",
    max_tokens: Annotated[int, Field(ge=1, le=2048, description="Most tokens to generate.")] = 256,
    temperature: Annotated[
        float, Field(ge=0, le=2, description="0 always gives the same answer; higher varies more.")
    ] = 0.0,
    json_schema: Annotated[
        str,
        BeforeValidator(_as_text),
        Field(
            max_length=MAX_SCHEMA_CHARACTERS,
            description="JSON Schema, as text: the answer is a JSON document that fits it. Empty: free text.",
        ),
    ] = "",
) -> Annotated[CallToolResult, CompleteResult]:
    """Answer a prompt with the small chat model on this computer; nothing leaves it and it costs nothing.

    Good for private text, short summaries, rewriting and classification; much weaker than you at reasoning
    and facts. It keeps no memory between calls. With json_schema an answer that was not cut off always parses
    and fits; the model does not see the schema, so say in the prompt what each field holds. Expect 10 to 200
    tokens per second, shared by all calls; after 50 seconds you get the text so far with finish_reason
    'deadline'.
    """
    system_message = (Message("system", system),) if system else ()
    request = ChatRequest(
        (*system_message, Message("user", prompt)),
        sampling=Sampling(max_tokens=max_tokens, temperature=temperature),
        json_format=JsonFormat(json_schema) if json_schema else None,
    )
    with tool_errors():
        async with aclosing(_app(ctx).gateway.chat(request)) as events:
            result = await _gathered(events, ctx)
    if json_schema and result.finish_reason != "stop":
        result = result.model_copy(update={"note": f"{result.note} The JSON is incomplete."})
    return complete_result(result)


async def health(ctx: AppContext) -> Health:
    """Say what this computer's gateway can do now: models and their state, devices, memory, queue lengths.

    Call it when another tool failed or seems slow. status 'degraded' names what failed in a detail or reason.
    """
    with tool_errors():
        return await _app(ctx).gateway.health()


@contextmanager
def tool_errors() -> Iterator[None]:
    """The engine's errors as ToolError, the only kind whose text the SDK passes on to the model."""
    try:
        yield
    except Unavailable as error:
        raise ToolError(f"{error} Retry in {error.retry_after_seconds:.0f} s.") from error
    except EngineError as error:
        raise ToolError(str(error)) from error


def _app(ctx: AppContext) -> App:
    return ctx.request_context.lifespan_context


async def _gathered(events: AsyncIterator[ChatEvent], ctx: AppContext) -> CompleteResult:
    """Fold the events, reporting progress; what has come by the deadline is the answer."""
    started: ChatStarted | None = None
    finished: ChatFinished | None = None
    text, pieces, report_at = "", 0, 0.0
    with anyio.move_on_after(DEADLINE_SECONDS):
        async for event in events:
            match event:
                case ChatStarted():
                    started = event
                case ChatPiece():
                    text, pieces = text + event.text, pieces + 1
                    if anyio.current_time() >= report_at:
                        await ctx.report_progress(pieces, message=f"{len(text)} characters so far")
                        report_at = anyio.current_time() + PROGRESS_SECONDS
                case ChatFinished():
                    finished = event
    if started is None or not (text or finished):
        raise ToolError(
            f"No text within {DEADLINE_SECONDS:.0f} s: the model is loading, reading a long prompt or "
            "serving others. Call health to see which; then send a shorter prompt or try again."
        )
    return CompleteResult(
        text=text,
        model=started.model,
        device=started.device,
        finish_reason=_finish_reason(finished),
        prompt_tokens=finished.usage.prompt_tokens if finished else None,
        completion_tokens=finished.usage.completion_tokens if finished else None,
        note=_completion_note(finished),
    )


def _finish_reason(finished: ChatFinished | None) -> Literal["stop", "length", "deadline"]:
    if finished is None:
        return "deadline"
    assert finished.finish_reason != "tool_calls", "no tools were offered"
    return finished.finish_reason


def _completion_note(finished: ChatFinished | None) -> str:
    if finished is None:
        return f"Cut off after {DEADLINE_SECONDS:.0f} s; ask for less, or for the rest in a new call."
    if finished.finish_reason == "length":
        return "Cut off at max_tokens or at the end of the model's context."
    return ""
