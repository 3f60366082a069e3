"""The document says what the routes do."""

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from openai_shim.app import all_routes
from openai_shim.chat.request import ChatCompletionRequest
from openai_shim.completions.request import CompletionRequest
from openai_shim.embeddings.request import EmbeddingRequest
from openai_shim.http.parsing import RequestModel
from openai_shim.ops.metrics import Metrics
from openai_shim.ops.openapi import document
from openai_shim.responses.request import ResponseRequest
from openai_shim.tokens.request import DetokenizeRequest, TokenizeRequest
from tests.openai_shim.conftest import Gateway
from tests.openai_shim.fakes import CHATTER, EMBEDDER, FakeEngine

CHAT: dict[str, object] = {"model": CHATTER, "messages": [{"role": "user", "content": "Hello"}]}
DOCUMENT = document(all_routes(Metrics(FakeEngine().as_engine)))
PATHS = DOCUMENT["paths"]
UNDOCUMENTED = {"/metrics", "/openapi.json", "/internal/identity", "/internal/shutdown"}

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def schema_of(reply: httpx2.Response, method: str, path: str) -> dict[str, Any]:
    """What the document says about this reply, with the definitions it refers to."""
    content = PATHS[path][method]["responses"][str(reply.status_code)]["content"]
    kind, _, _ = reply.headers["content-type"].partition(";")
    schema: dict[str, Any] = content[kind]["schema"]
    return schema | {"components": DOCUMENT["components"]}


def assert_documented(reply: httpx2.Response, method: str, path: str) -> None:
    Draft202012Validator(schema_of(reply, method, path)).validate(reply.json())


def assert_events_documented(reply: httpx2.Response, method: str, path: str) -> None:
    schema = schema_of(reply, method, path)
    (payload,) = (kind for kind in schema["properties"]["data"]["anyOf"] if "contentSchema" in kind)
    validator = Draft202012Validator(payload["contentSchema"] | {"components": schema["components"]})
    lines = (line for line in reply.text.splitlines() if line.startswith("data: "))
    written = [line.removeprefix("data: ") for line in lines]
    assert written
    for data in written:
        if data != "[DONE]":
            validator.validate(json.loads(data))


def test_every_schema_is_valid_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


async def test_the_document_has_every_route_and_no_other(running: Gateway) -> None:
    routes = {f"/{route.path}" for route in running.app.router.routes}

    assert {path.replace("{model_id}", "<model_id:path>") for path in PATHS} == routes - UNDOCUMENTED
    assert (await running.http.get("/openapi.json")).json() == DOCUMENT


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": EMBEDDER, "input": "a"}),
        ("/v1/embeddings", {"model": EMBEDDER, "input": "a", "encoding_format": "base64"}),
        ("/v1/embeddings", {"model": "nope", "input": "a"}),
        ("/v1/embeddings", {}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", CHAT | {"temperature": 99}),
        ("/v1/completions", {"model": CHATTER, "prompt": ["a", "b"]}),
    ],
    ids=str,
)
async def test_replies_are_as_documented(running: Gateway, path: str, body: dict[str, object]) -> None:
    assert_documented(await running.http.post(path, json=body), "post", path)


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/v1/models"])
async def test_readings_are_as_documented(running: Gateway, path: str) -> None:
    assert_documented(await running.http.get(path), "get", path)


KNOWN_FIELDS: dict[str, tuple[type[RequestModel], dict[str, object]]] = {
    "/v1/chat/completions": (ChatCompletionRequest, CHAT),
    "/v1/completions": (CompletionRequest, {"prompt": "Hello"}),
    "/v1/embeddings": (EmbeddingRequest, {"input": "Hello"}),
    "/v1/responses": (ResponseRequest, {"input": "Hello"}),
    "/tokenize": (TokenizeRequest, {"content": "Hello"}),
    "/detokenize": (DetokenizeRequest, {"tokens": [72]}),
}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    """A route, and fields that are in order with some of the known ones replaced by anything."""
    path = draw(st.sampled_from(sorted(KNOWN_FIELDS)))
    known, in_order = KNOWN_FIELDS[path]
    names = st.sampled_from([*known.model_fields, *known.idle_values])
    streams: list[dict[str, object]] = [{}, {"stream": True}]
    stream = draw(st.sampled_from(streams))
    return path, in_order | stream | draw(st.dictionaries(names, anything, max_size=4))


@given(asked=bodies())
@settings(max_examples=2000, deadline=None)
async def test_no_body_breaks_the_gateway(
    shared_gateway: Gateway, asked: tuple[str, dict[str, object]]
) -> None:
    path, body = asked
    content = json.dumps(body).encode(errors="replace")  # with NaN and Infinity, which JSON does not have
    headers = {"content-type": "application/json"}
    reply = await shared_gateway.http.post(path, content=content, headers=headers)

    assert reply.status_code < 500, reply.text
    if reply.headers["content-type"].startswith("text/event-stream"):
        assert_events_documented(reply, "post", path)
    else:
        assert_documented(reply, "post", path)
