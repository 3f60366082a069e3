"""The OpenAPI 3.1 document: requests from the schemas that read them, replies from their types."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from engine import __version__
from engine.types import Health
from openai_shim.embeddings.request import EmbeddingRequest
from openai_shim.generation.request import ChatCompletionRequest, CompletionRequest
from openai_shim.http.wire import WireModel
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
from openai_shim.responses.request import ResponseRequest
from openai_shim.tokens.route import DetokenizeRequest, TokenizeRequest

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
            "headers": {
                "x-request-id": {
                    "description": "The request's name in the gateway's log; a sent one is adopted",
                    "required": True,
                    "schema": {"type": "string"},
                }
            },
        },
        "security": [{}, {"key": []}],
    }


def _paths() -> Json:
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
        "/v1/models/{model_id}": {"get": _of_a_model("Show a model")},
        "/v1/models/{model_id}/load": {
            "post": _of_a_model("Load a model into memory", pending="It starts again after a crash")
        },
        "/v1/models/{model_id}/unload": {
            "post": _of_a_model(
                "Give a model's memory back", pending="It happens when the last running request has ended"
            )
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
) -> Json:
    content = _json(reply)
    if chunk is not None:
        content["text/event-stream"] = {"schema": _event(chunk)}
    answered = {"200": _response("What was asked for", content)}
    if request is None:
        return {"summary": summary, "responses": answered | _refused(*_BY_THE_GUARD)}
    body = {"required": True, "content": _json(request)}
    return {
        "summary": summary,
        "requestBody": body,
        "responses": answered | _refused(*_OF_A_BODY, *_BY_THE_GUARD),
    }


def _of_a_model(summary: str, *, pending: str | None = None) -> Json:
    """pending: what a 202 means."""
    model_id = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}}
    operation = _operation(summary, Model) | {"parameters": [model_id]}
    operation["responses"] |= _refused("404")
    if pending is not None:
        operation["responses"] |= {"202": _response(pending, _json(Model))} | _refused("500")
    return operation


def _socket(summary: str) -> Json:
    opened = {"101": {"description": "Messages: requests and chunks of /v1/chat/completions"}}
    return {"summary": summary, "responses": opened | _refused("426", *_BY_THE_GUARD)}


_MEANINGS = {
    "400": "The request is wrong, and the error's param names where",
    "401": "The key is missing or wrong",
    "403": "A web page of a foreign origin asks",
    "404": "There is no such model",
    "408": "The request did not arrive in time",
    "413": "The request is larger than 8 MiB",
    "415": "The request is not JSON",
    "421": "The gateway does not answer to this host name",
    "426": "This address takes WebSocket connections only",
    "429": "Too many requests wait already; Retry-After says when to come again",
    "500": "The gateway or a model's process failed",
    "503": "A model is still loading, or the gateway ends; Retry-After says when to come again",
}
_OF_A_BODY = ("400", "404", "408", "413", "415", "429", "500")
_BY_THE_GUARD = ("401", "403", "421", "503")


def _refused(*statuses: str) -> Json:
    return {status: _response(_MEANINGS[status], _json(Error)) for status in statuses}


def _json(reply: type[object]) -> Json:
    return {"application/json": {"schema": _reference(reply)}}


def _event(chunk: type[object]) -> Json:
    """Of the stream: the readers of OpenAPI 3.1 take the schema of an event stream for that of each event."""
    written: Json = {"anyOf": [_reference(chunk), _reference(Error)]}
    payload = {"contentMediaType": "application/json", "contentSchema": written}
    data = {"type": "string", "anyOf": [{"const": "[DONE]"}, payload]}
    properties = {"event": {"type": "string"}, "data": data}
    return {"type": "object", "properties": properties, "required": ["data"]}


def _response(description: str, content: Json) -> Json:
    return {
        "description": description,
        "headers": {"x-request-id": {"$ref": "#/components/headers/x-request-id"}},
        "content": content,
    }


def _reference(kind: type[object]) -> Mapping[str, str]:
    return {"$ref": REFERENCE.format(model=kind.__name__)}
