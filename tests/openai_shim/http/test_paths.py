"""Replies say what is wrong, and nothing about where things are on this machine."""

import pytest

from engine.errors import EngineError
from openai_shim.http.paths import without_paths
from tests.openai_shim.conftest import gateway
from tests.openai_shim.fakes import EMBEDDER, FakeEngine


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ann/models/m.onnx is broken.", "m.onnx is broken."),
        ("Load model from /home/ann lee/m.onnx failed", "Load model from m.onnx failed"),
        (r"C:\Users\Ann Lee\m.onnx and D:\x\y.bin", "m.onnx and y.bin"),
        ("'C:/Users/ann/m.onnx'", "'m.onnx'"),
        (r"\\server\ann\m.onnx is gone", "m.onnx is gone"),
        ("Ask http://127.0.0.1:8000/v1/models and/or read </s>.",) * 2,
        ("3 / 4 of it; see `npu-gateway logs`",) * 2,
    ],
)
def test_of_a_path_only_the_last_name_is_shown(text: str, shown: str) -> None:
    assert without_paths(text) == shown


async def test_no_reply_about_a_failed_model_shows_a_path() -> None:
    engine = FakeEngine(
        error=EngineError("/home/ann/m.onnx cannot be read."),
        states={EMBEDDER: "failed"},
        detail="/home/ann/m.onnx cannot be read",
    )
    async with gateway(engine) as running:
        refused = await running.http.post("/v1/embeddings", json={"input": "a"})
        unready = await running.http.get("/readyz")
        health = await running.http.get("/health")

    assert refused.json()["error"]["message"] == "m.onnx cannot be read."
    assert unready.json()["error"]["message"] == "tiny-embedder is failed: m.onnx cannot be read."
    assert health.json()["models"][0]["detail"] == "m.onnx cannot be read"
