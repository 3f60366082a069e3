"""The OpenAPI 3.1 document: requests from the schemas that read them, replies from their types."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from sanic import HTTPResponse

from engine import __version__
from openai_shim.http.context import Request
from openai_shim.http.errors import Error
from openai_shim.http.reply import json_reply
from openai_shim.http.routes import Description, Route

Json = dict[str, Any]
"""A piece of the document."""

REFERENCE = "#/components/schemas/{model}"


def openapi_routes(described: Sequence[Route]) -> tuple[Route, ...]:
    async def openapi(request: Request) -> HTTPResponse:
        return json_reply(document(described))

    return (Route("GET", "/openapi.json", openapi),)


def document(routes: Sequence[Route]) -> Json:
    described = [(route, route.description) for route in routes if route.description]
    descriptions = [description for _, description in described]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "npu-gateway",
            "version": __version__,
            "description": "Embeddings and chat on this machine, as OpenAI's clients ask for them.",
        },
        "paths": _paths(described),
        "components": {
            "schemas": _body_schemas(descriptions) | _reply_schemas(descriptions),
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


def _body_schemas(descriptions: Iterable[Description]) -> Json:
    kinds = dict.fromkeys(each.body for each in descriptions if each.body)
    _, schema = models_json_schema([(kind, "validation") for kind in kinds], ref_template=REFERENCE)
    return dict(schema["$defs"])


def _reply_schemas(descriptions: Iterable[Description]) -> Json:
    answers = [kind for each in descriptions for kind in (each.reply, each.event) if kind]
    kinds: Iterable[type[object]] = dict.fromkeys([Error, *answers])
    named: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = [
        (kind.__name__, "serialization", TypeAdapter(kind)) for kind in kinds
    ]
    _, schema = TypeAdapter.json_schemas(named, ref_template=REFERENCE)
    return dict(schema["$defs"])


def _paths(described: Iterable[tuple[Route, Description]]) -> Json:
    paths: Json = {}
    for route, description in described:
        paths.setdefault(route.path, {})[_method(route)] = _operation(route.path, description)
    return paths


def _method(route: Route) -> str:
    return "get" if route.method == "WEBSOCKET" else route.method.lower()


def _operation(path: str, description: Description) -> Json:
    if description.reply is None:
        return _socket(description.summary)
    operation: Json = {"summary": description.summary}
    answered = _response("What was asked for", _content(description.reply, description.event))
    answers = {"200": answered} | _refused(*_BY_THE_GUARD)
    if description.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(description.body)}
        answers |= _refused(*_OF_A_BODY)
    if names := re.findall(r"{(\w+)}", path):
        operation["parameters"] = [_in_path(name) for name in names]
        answers |= _refused("404")
    if description.pending is not None:
        answers |= {"202": _response(description.pending, _json(description.reply))} | _refused("500")
    return operation | {"responses": answers}


def _content(reply: type[object], event: type[object] | None) -> Json:
    content = _json(reply)
    if event is not None:
        content["text/event-stream"] = {"schema": _event(event)}
    return content


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


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
