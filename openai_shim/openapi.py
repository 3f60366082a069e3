"""The OpenAPI 3.1 document: requests from the schemas that read them, replies from their types."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from engine import __version__
from engine.types import Health
from openai_shim.embedding_requests import EmbeddingRequest
from openai_shim.generation_requests import ChatCompletionRequest, CompletionRequest
from openai_shim.reply_types import (
    ChatCompletion,
    ChatCompletionChunk,
    EmbeddingList,
    Error,
    Liveness,
    Model,
    ModelList,
    Readiness,
    Response,
    ResponseEvent,
    Text,
    TextCompletion,
    Tokens,
)
from openai_shim.response_requests import ResponseRequest
from openai_shim.token_routes import DetokenizeRequest, TokenizeRequest
from openai_shim.wire import WireModel

Json = dict[str, Any]
"""A piece of the document."""

REFERENCE = "#/components/schemas/{model}"


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
            Response,
            ResponseEvent,
            Tokens,
            Text,
            Liveness,
            Readiness,
            Health,
        )
    ]
    _, replies_schema = TypeAdapter.json_schemas(replies, ref_template=REFERENCE)
    _, requests_schema = models_json_schema(
        [
            (kind, "validation")
            for kind in (
                EmbeddingRequest,
                ChatCompletionRequest,
                CompletionRequest,
                ResponseRequest,
                TokenizeRequest,
                DetokenizeRequest,
            )
        ],
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
        "/v1/chat/stream": {"get": _socket("Answer conversations over a WebSocket")},
        "/v1/completions": {
            "post": _operation("Answer prompts", TextCompletion, CompletionRequest, chunk=TextCompletion)
        },
        "/v1/models": {"get": _operation("List the models", ModelList)},
        "/v1/models/{model_id}": {"get": _operation("Show a model", Model) | {"parameters": [model_id]}},
        "/v1/models/{model_id}/load": {
            "post": _operation("Load a model into memory", Model, pending="It starts again after a crash")
            | {"parameters": [model_id]}
        },
        "/v1/models/{model_id}/unload": {
            "post": _operation(
                "Give a model's memory back",
                Model,
                pending="It happens when the last running request has ended",
            )
            | {"parameters": [model_id]}
        },
        "/v1/responses": {
            "post": _operation("Answer, statelessly", Response, ResponseRequest, chunk=ResponseEvent)
        },
        "/tokenize": {"post": _operation("Turn a text into token ids", Tokens, TokenizeRequest)},
        "/detokenize": {"post": _operation("Turn token ids into text", Text, DetokenizeRequest)},
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
    pending: str | None = None,
) -> Json:
    """pending: what a 202 means."""
    content = {"application/json": {"schema": _reference(reply)}}
    if chunk is not None:
        content["text/event-stream"] = {"schema": {"type": "string"}, "x-event-schema": _reference(chunk)}
    answered = {"200": {"description": "What was asked for", "content": content}}
    operation: Json = {"summary": summary, "responses": answered | _refused()}
    if pending is not None:
        operation["responses"]["202"] = {"description": pending, "content": content}
    if request is not None:
        body = {"required": True, "content": {"application/json": {"schema": _reference(request)}}}
        operation["requestBody"] = body
    return operation


def _socket(summary: str) -> Json:
    opened = {"101": {"description": "Messages: requests and chunks of /v1/chat/completions"}}
    return {"summary": summary, "responses": opened | _refused()}


def _refused() -> Json:
    content = {"application/json": {"schema": _reference(Error)}}
    return {"default": {"description": "What is wrong and what to do", "content": content}}


def _reference(kind: type[object]) -> Mapping[str, str]:
    return {"$ref": REFERENCE.format(model=kind.__name__)}
