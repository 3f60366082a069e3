"""What Prometheus reads, and what the log keeps."""

import asyncio
import json
import logging
import re
from datetime import datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from openai_shim.http.log import JsonLines
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, EMBEDDER, FakeEngine, soon

EMBED = {"model": EMBEDDER, "input": ["a", "bc"]}
CHAT = {"model": CHATTER, "messages": [{"role": "user", "content": "my secret"}]}


async def samples(running: Gateway) -> dict[str, float]:
    """By name and labels, these in the order of the alphabet."""
    reply = await running.http.get("/metrics")
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


async def test_requests_tokens_and_devices_are_counted() -> None:
    async with gateway() as running:
        await running.http.post("/v1/embeddings", json=EMBED)
        await running.http.post("/v1/chat/completions", json=CHAT)
        await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
        await running.http.post("/v1/chat/completions", json=CHAT | {"model": "nope"})
        await running.http.get("/nothing/of/the/kind")
        counted = await samples(running)

    assert {
        name: value for name, value in counted.items() if name.startswith("npu_gateway_http_requests_t")
    } == {
        "npu_gateway_http_requests_total{method=POST,route=/v1/embeddings,status=200}": 1,
        "npu_gateway_http_requests_total{method=POST,route=/v1/chat/completions,status=200}": 2,
        "npu_gateway_http_requests_total{method=POST,route=/v1/chat/completions,status=404}": 1,
        "npu_gateway_http_requests_total{method=GET,route=unknown,status=404}": 1,
    }
    assert {name: value for name, value in counted.items() if name.startswith("gen_ai_server_tokens_t")} == {
        f"gen_ai_server_tokens_total{{model={EMBEDDER},operation=embeddings,token_type=input}}": 7,
        f"gen_ai_server_tokens_total{{model={EMBEDDER},operation=embeddings,token_type=output}}": 0,
        f"gen_ai_server_tokens_total{{model={CHATTER},operation=chat,token_type=input}}": 14,
        f"gen_ai_server_tokens_total{{model={CHATTER},operation=chat,token_type=output}}": 4,
    }
    assert counted["npu_gateway_device_requests_total{device=cpu,operation=embeddings}"] == 1
    assert counted["npu_gateway_device_requests_total{device=cpu,operation=chat}"] == 2


async def test_times_are_counted_once_for_each_request_they_exist_for() -> None:
    async with gateway() as running:
        await running.http.post("/v1/chat/completions", json=CHAT)
        await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True, "n": 2})
        counted = await samples(running)

    labels = f"{{model={CHATTER},operation=chat}}"
    assert counted[f"gen_ai_server_request_duration_seconds_count{labels}"] == 2
    assert counted[f"gen_ai_server_time_to_first_token_seconds_count{labels}"] == 1
    assert counted[f"gen_ai_server_time_per_output_token_seconds_count{labels}"] == 2
    assert counted[f"gen_ai_server_request_queue_time_seconds_count{labels}"] == 3
    assert counted[f"gen_ai_server_request_queue_time_seconds_sum{labels}"] == 1.5


async def test_what_the_engine_knows_is_read_when_asked(running: Gateway) -> None:
    counted = await samples(running)

    assert counted["npu_gateway_uptime_seconds{}"] == 1.5
    assert counted["npu_gateway_queue_length{kind=chat}"] == 0
    assert counted[f"npu_gateway_model_state{{model={EMBEDDER},state=ready}}"] == 1


async def test_what_each_device_did_for_a_model_can_be_read(running: Gateway) -> None:
    counted = await samples(running)

    on_cpu = f"{{device=cpu,model={EMBEDDER},up_to_tokens=32}}"
    assert {name: value for name, value in counted.items() if name.startswith("npu_gateway_embedding_")} == {
        f"npu_gateway_embedding_batches_total{on_cpu}": 3,
        f"npu_gateway_embedding_texts_total{on_cpu}": 30,
        f"npu_gateway_embedding_tokens_total{on_cpu}": 400,
        f"npu_gateway_embedding_failed_batches_total{on_cpu}": 1,
        f"npu_gateway_embedding_expected_seconds_total{on_cpu}": 0.5,
        f"npu_gateway_embedding_actual_seconds_total{on_cpu}": 0.75,
        f"npu_gateway_embedding_queue_seconds_total{on_cpu}": 1.25,
        f"npu_gateway_embedding_cache_total{{model={EMBEDDER},outcome=hit}}": 5,
        f"npu_gateway_embedding_cache_total{{model={EMBEDDER},outcome=miss}}": 25,
    }


async def test_each_request_leaves_one_line_without_its_content(
    running: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="openai_shim.access"):
        reply = await running.http.post("/v1/chat/completions", json=CHAT)

    (line,) = [record.message for record in caplog.records if record.name == "openai_shim.access"]
    pattern = rf"{reply.headers['x-request-id']} POST /v1/chat/completions 200 \d+\.\dms"
    assert re.fullmatch(pattern, line)


async def test_who_leaves_before_the_answer_leaves_a_line_and_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = FakeEngine()
    engine.reading.clear()
    with caplog.at_level(logging.INFO, logger="openai_shim.access"):
        async with gateway(engine) as running:
            call = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT))
            await soon(engine.started.wait())
            call.cancel()
            await soon(engine.ended.wait())
            counted = await samples(running)

    (line,) = [record.message for record in caplog.records if "/v1/chat" in record.message]
    assert re.fullmatch(r"req_\w+ POST /v1/chat/completions 499 \d+\.\dms", line)
    answered = "npu_gateway_http_requests_total{method=POST,route=/v1/chat/completions,status=499}"
    assert counted[answered] == 1


async def test_who_leaves_in_the_middle_of_a_stream_leaves_a_line_that_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = FakeEngine()
    engine.writing.clear()
    with caplog.at_level(logging.INFO, logger="openai_shim.access"):
        async with gateway(engine) as running:
            async with running.http.stream(
                "POST", "/v1/chat/completions", json=CHAT | {"stream": True}
            ) as reply:
                await soon(anext(reply.aiter_bytes()))
            await soon(engine.ended.wait())
            counted = await samples(running)

    (line,) = [record.message for record in caplog.records if "/v1/chat" in record.message]
    pattern = (
        rf"{reply.headers['x-request-id']} POST /v1/chat/completions 499 \d+\.\dms, cut off after 1 pieces"
    )
    assert re.fullmatch(pattern, line)
    answered = "npu_gateway_http_requests_total{method=POST,route=/v1/chat/completions,status=499}"
    assert counted[answered] == 1


async def test_as_json_each_line_has_its_facts_as_fields(
    running: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="openai_shim.access"):
        reply = await running.http.get("/v1/models")

    (record,) = [record for record in caplog.records if record.name == "openai_shim.access"]
    line = json.loads(JsonLines().format(record))
    assert line.pop("milliseconds") >= 0
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "INFO",
        "logger": "openai_shim.access",
        "request_id": reply.headers["x-request-id"],
        "method": "GET",
        "path": "/v1/models",
        "status": 200,
    }
