"""The OpenAPI 3.1 document: requests from the schemas that read them, replies from the types below."""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine import __version__
from engine.types import FinishReason, Health, ModelKind, ModelState
from openai_shim.embedding_requests import EmbeddingRequest
from openai_shim.generation_requests import ChatCompletionRequest, CompletionRequest
from openai_shim.wire import WireModel

Json = dict[str, Any]
"""A piece of the document."""

REFERENCE = "#/components/schemas/{model}"


class ErrorDetail(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None
    n_ctx: NotRequired[int]
    n_prompt_tokens: NotRequired[int]


class Error(TypedDict):
    error: ErrorDetail


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Embedding(TypedDict):
    """embedding: base64 of little-endian float32 if encoding_format asks for it."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class PromptTokensDetails(TypedDict):
    cached_tokens: int


class CompletionUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TokenLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChoiceLogprobs(TypedDict):
    content: list[ChosenLogprob]
    refusal: None


class Function(TypedDict):
    name: str
    arguments: str


class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: Function


class ToolCallDelta(ToolCall):
    index: int


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[ToolCall]]


class ChatChoice(TypedDict):
    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: CompletionUsage


class Delta(TypedDict, total=False):
    role: Literal["assistant"]
    content: str
    refusal: None
    tool_calls: list[ToolCallDelta]


class ChunkChoice(TypedDict):
    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(TypedDict):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChunkChoice]
    usage: NotRequired[CompletionUsage]


class TextChoice(TypedDict):
    index: int
    text: str
    logprobs: None
    finish_reason: FinishReason | None


class TextCompletion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoice]
    usage: NotRequired[CompletionUsage]


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: ModelKind
    state: ModelState
    device: str | None
    context_length: int
    dimensions: int | None


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


class Liveness(TypedDict):
    status: Literal["ok"]


class Readiness(TypedDict):
    status: Literal["ready"]
    models: dict[str, ModelState]


def document() -> Json:
    replies: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = [
        (kind.__name__, "serialization", TypeAdapter(kind))
        for kind in (
            Error,
            EmbeddingList,
            ChatCompletion,
            ChatCompletionChunk,
            TextCompletion,
            Model,
            ModelList,
            Liveness,
            Readiness,
            Health,
        )
    ]
    _, replies_schema = TypeAdapter.json_schemas(replies, ref_template=REFERENCE)
    _, requests_schema = models_json_schema(
        [(kind, "validation") for kind in (EmbeddingRequest, ChatCompletionRequest, CompletionRequest)],
        ref_template=REFERENCE,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "npu-gateway",
            "version": __version__,
            "description": "Embeddings and chat on this machine, as OpenAI's clients ask for them.",
        },
        "paths": _paths(),
        "components": {
            "schemas": requests_schema["$defs"] | replies_schema["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _paths() -> Json:
    model_id = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/embeddings": {"post": _operation("Turn texts into vectors", EmbeddingList, EmbeddingRequest)},
        "/v1/chat/completions": {
            "post": _operation(
                "Answer a conversation", ChatCompletion, ChatCompletionRequest, chunk=ChatCompletionChunk
            )
        },
        "/v1/completions": {
            "post": _operation("Answer prompts", TextCompletion, CompletionRequest, chunk=TextCompletion)
        },
        "/v1/models": {"get": _operation("List the models", ModelList)},
        "/v1/models/{model_id}": {"get": _operation("Show a model", Model) | {"parameters": [model_id]}},
        "/health": {"get": _operation("Models, devices, memory, queues", Health)},
        "/healthz": {"get": _operation("Is the gateway alive", Liveness)},
        "/readyz": {"get": _operation("Can texts be embedded", Readiness)},
    }


def _operation(
    summary: str,
    reply: type[object],
    request: type[WireModel] | None = None,
    *,
    chunk: type[object] | None = None,
) -> Json:
    content = {"application/json": {"schema": _reference(reply)}}
    if chunk is not None:
        content["text/event-stream"] = {"schema": {"type": "string"}, "x-event-schema": _reference(chunk)}
    operation: Json = {
        "summary": summary,
        "responses": {
            "200": {"description": "What was asked for", "content": content},
            "default": {
                "description": "What is wrong and what to do",
                "content": {"application/json": {"schema": _reference(Error)}},
            },
        },
    }
    if request is not None:
        body = {"required": True, "content": {"application/json": {"schema": _reference(request)}}}
        operation["requestBody"] = body
    return operation


def _reference(kind: type[object]) -> Mapping[str, str]:
    return {"$ref": REFERENCE.format(model=kind.__name__)}
