"""Bodies that arrive compressed."""

import gzip
import json

import pytest

from tests.openai_shim.conftest import Gateway
from tests.openai_shim.fakes import EMBEDDER

BODY = json.dumps({"model": EMBEDDER, "input": "a"}).encode()
HALVES = gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])
BOMB = gzip.compress(b" " * (8 * 2**20 + 1))


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        ("gzip", gzip.compress(BODY), 200, None),
        ("GZIP", gzip.compress(BODY), 200, None),
        ("gzip", HALVES, 200, None),
        ("identity", BODY, 200, None),
        ("gzip", BOMB, 413, "request_too_large"),
        ("gzip", gzip.compress(BODY)[:-9], 400, "invalid_value"),
        ("gzip", BODY, 400, "invalid_value"),
        ("zstd", b"\x28\xb5\x2f\xfd", 415, "unsupported_content_encoding"),
        ("br", BODY, 415, "unsupported_content_encoding"),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY)), 415, "unsupported_content_encoding"),
    ],
)
async def test_gzip_is_read_within_the_limit_and_the_rest_refused(
    running: Gateway, encoding: str, body: bytes, status: int, code: str | None
) -> None:
    reply = await running.http.post(
        "/v1/embeddings",
        content=body,
        headers={"content-encoding": encoding, "content-type": "application/json"},
    )

    assert (reply.status_code, reply.json().get("error", {}).get("code")) == (status, code)
    assert len(running.engine.requests) == (status == 200)
    assert reply.headers.get("accept-encoding") == ("gzip" if status == 415 else None)
