"""Whatever goes wrong, the reply is an OpenAI error object with the right status."""

import asyncio
import json
import socket

import openai
import pytest

from engine import errors as engine_errors
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, EMBEDDER, FakeEngine, settings

CHAT = {"model": CHATTER, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("error", "status", "body", "headers"),
    [
        (
            engine_errors.ContextTooLong(limit_tokens=4096, actual_tokens=5120, field="messages"),
            400,
            {
                "message": "This model's maximum context length is 4096 tokens. However, your messages "
                "resulted in 5120 tokens. Please reduce the length of the messages.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
                "n_ctx": 4096,
                "n_prompt_tokens": 5120,
            },
            {},
        ),
        (
            engine_errors.ContextTooLong(limit_tokens=512, actual_tokens=700, field="inputs", index=3),
            400,
            {
                "message": "This model's maximum context length is 512 tokens. However, input 3 has 700 "
                "tokens. Split it or shorten it.",
                "type": "invalid_request_error",
                "param": "input",
                "code": "context_length_exceeded",
                "n_ctx": 512,
                "n_prompt_tokens": 700,
            },
            {},
        ),
        (
            engine_errors.BadInput("dimensions must be from 1 to 384.", field="dimensions"),
            400,
            {
                "message": "dimensions must be from 1 to 384.",
                "type": "invalid_request_error",
                "param": "dimensions",
                "code": "invalid_value",
            },
            {},
        ),
        (
            engine_errors.ModelNotFound("No model 'x' is installed."),
            404,
            {
                "message": "No model 'x' is installed.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            },
            {},
        ),
        (
            engine_errors.Overloaded("9 requests wait already.", retry_after_seconds=2.1),
            429,
            {
                "message": "9 requests wait already.",
                "type": "rate_limit_error",
                "param": None,
                "code": "overloaded",
            },
            {"retry-after": "3"},
        ),
        (
            engine_errors.ModelNotReady("It is being fetched.", retry_after_seconds=0.2),
            503,
            {
                "message": "It is being fetched.",
                "type": "server_error",
                "param": None,
                "code": "model_not_ready",
            },
            {"retry-after": "1"},
        ),
        (
            engine_errors.WorkerCrashed("Its process ended."),
            500,
            {
                "message": "Its process ended.",
                "type": "server_error",
                "param": None,
                "code": "worker_crashed",
            },
            {"x-should-retry": "false"},
        ),
        (
            engine_errors.ModelSupplyError("The disk is full."),
            500,
            {"message": "The disk is full.", "type": "server_error", "param": None, "code": "engine_error"},
            {"x-should-retry": "false"},
        ),
        (
            RuntimeError("/home/ann/secret.txt"),
            500,
            {
                "message": "The gateway met a bug. Its log has the details under this reply's x-request-id.",
                "type": "server_error",
                "param": None,
                "code": "internal_error",
            },
            {"x-should-retry": "false"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("route", ["embeddings", "chat", "stream"])
async def test_what_the_engine_raises_has_its_status_and_body(
    route: str, error: Exception, status: int, body: dict[str, object], headers: dict[str, str]
) -> None:
    async with gateway(FakeEngine(error=error)) as running:
        if route == "embeddings":
            reply = await running.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"})
        else:
            reply = await running.http.post("/v1/chat/completions", json=CHAT | {"stream": route == "stream"})

    assert (reply.status_code, reply.json()) == (status, {"error": body})
    assert {name: reply.headers[name] for name in headers} == headers


async def test_a_bug_is_logged_under_the_id_of_its_reply(caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(FakeEngine(error=RuntimeError("what happened"))) as running:
        reply = await running.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": "a"})

    record = next(record for record in caplog.records if reply.headers["x-request-id"] in record.message)
    assert record.exc_info
    assert str(record.exc_info[1]) == "what happened"


@pytest.mark.parametrize(
    ("method", "path", "content", "kind", "status", "code"),
    [
        ("POST", "/v1/embeddings", b"{", "application/json", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b"", "application/json", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b'"\\ud800"', "application/json", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b"[" * 100_000, "application/json", 400, "invalid_json"),
        ("POST", "/v1/embeddings", b"[]", "application/json", 400, "invalid_type"),
        ("POST", "/v1/embeddings", b"{}", "application/json", 400, "missing_required_parameter"),
        (
            "POST",
            "/v1/embeddings",
            b"input=a",
            "application/x-www-form-urlencoded",
            415,
            "unsupported_media_type",
        ),
        ("POST", "/v1/chat/completions", b'{"temperature": NaN}', "application/json", 400, None),
        ("GET", "/v1/embeddings", b"", None, 405, "method_not_allowed"),
        ("GET", "/v1/nothing", b"", None, 404, "not_found"),
        ("GET", "/", b"", None, 404, "not_found"),
        ("GET", "/v1/models/nothing", b"", None, 404, "model_not_found"),
        ("GET", "/v1/models/some/thing", b"", None, 404, "model_not_found"),
    ],
)
async def test_every_refusal_has_all_four_keys(
    running: Gateway, method: str, path: str, content: bytes, kind: str | None, status: int, code: str | None
) -> None:
    headers = {"content-type": kind} if kind else {}
    reply = await running.http.request(method, path, content=content, headers=headers)

    error = reply.json()["error"]
    assert reply.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code or code is None
    assert error["type"] == "invalid_request_error"
    assert reply.headers["x-request-id"]
    assert reply.headers["openai-processing-ms"].isdigit()


async def test_a_body_of_10_mb_is_a_413_that_the_client_can_read() -> None:
    """The rest of the body is read before the connection closes; a reset would reach the client first."""
    async with gateway() as running:
        for _ in range(5):
            with pytest.raises(openai.APIStatusError) as caught:
                await running.openai.embeddings.create(model=EMBEDDER, input="a" * 10_000_000)

            assert caught.value.status_code == 413
            assert caught.value.code == "request_too_large"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nx-long: " + b"a" * 9000 + b"\r\n\r\n", 413),
        (b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n", 421),
        (b"GET / HTTP/1.0\r\n\r\n", 421),
    ],
    ids=str,
)
async def test_broken_http_has_an_error_object_too(running: Gateway, sent: bytes, status: int) -> None:
    head, body = await asyncio.to_thread(_exchange, running.port, sent)

    assert int(head.split()[1]) == status
    assert b"x-request-id" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def _exchange(port: int, sent: bytes) -> tuple[bytes, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(sent)
        received = b""
        while b"\r\n\r\n{" not in received or not received.endswith(b"}}"):
            more = connection.recv(65536)
            assert more, received
            received += more
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("abc-1.2:3_x", "abc-1.2:3_x"), ("a b", None), ("a" * 129, None), ("", None)],
)
async def test_a_sane_request_id_is_kept(running: Gateway, sent: str, expected: str | None) -> None:
    reply = await running.http.get("/healthz", headers={"x-request-id": sent})

    given = reply.headers["x-request-id"]
    assert given == expected or (expected is None and given.startswith("req_") and given != sent)


async def test_strict_refuses_unknown_fields_by_name() -> None:
    async with gateway(configured=settings(strict=True)) as running:
        reply = await running.http.post("/v1/chat/completions", json=CHAT | {"best_wishes": 3})

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "best_wishes")
    assert reply.json()["error"]["code"] == "unsupported_parameter"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("route", "field"), [("/v1/completions", "prompt"), ("/v1/responses", "input")])
async def test_an_overflow_names_the_field_that_the_route_knows(route: str, field: str, stream: bool) -> None:
    overflow = engine_errors.ContextTooLong(limit_tokens=9, actual_tokens=10, field="messages")
    async with gateway(FakeEngine(error=overflow)) as running:
        reply = await running.http.post(route, json={field: "Hello", "stream": stream})

    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", field)
