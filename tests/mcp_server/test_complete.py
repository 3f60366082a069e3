"""What complete and health answer, and when they cannot."""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from mcp import Client

from engine.daemon import ensure
from engine.remote.client import GatewayClient, Locate
from engine.settings import Home
from mcp_server import tools
from mcp_server.server import create_server
from tests.mcp_server.calls import called, text_of
from tests.mcp_server.canned import NO_HOME
from tests.mcp_server.wire import until


async def test_complete_answers_with_its_facts_in_both_channels(locate: Locate) -> None:
    result = await called(locate, "complete", prompt="hello", system="be brief")

    assert result.structured_content == {
        "text": "system: be brief. user: hello. ",
        "model": "canned-chat",
        "device": "cpu",
        "finish_reason": "stop",
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "note": "",
    }
    assert [block.text for block in result.content] == [
        "system: be brief. user: hello. ",
        "[canned-chat on cpu; finish_reason stop; 11 prompt tokens, 7 generated]",
    ]


@pytest.mark.parametrize("written", [json.dumps, lambda schema: schema], ids=["text", "object"])
async def test_complete_asks_the_engine_for_json_of_the_schema(
    locate: Locate, written: Callable[[dict[str, Any]], object]
) -> None:
    schema = {"type": "object", "properties": {"größe": {"type": "integer"}, "a": {"type": "string"}}}

    result = await called(locate, "complete", prompt="hello", json_schema=written(schema))

    answer, _, form = result.structured_content["text"].partition("as ")
    assert answer == "user: hello. "
    assert form == json.dumps(schema, ensure_ascii=False)


async def test_json_that_was_cut_off_is_called_incomplete(locate: Locate) -> None:
    result = await called(locate, "complete", prompt="long", json_schema="{}")

    assert result.structured_content["note"] == (
        "Cut off at max_tokens or at the end of the model's context. The JSON is incomplete."
    )


async def test_a_full_queue_says_when_to_try_again(locate: Locate) -> None:
    result = await called(locate, "complete", prompt="busy")

    assert result.is_error
    assert text_of(result) == "Error executing tool complete: Too many chats are waiting. Retry in 7 s."


async def test_at_the_deadline_complete_returns_what_it_has(
    locate: Locate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "DEADLINE_SECONDS", 1.0)

    result = await called(locate, "complete", prompt="endless")

    facts = result.structured_content
    assert facts.pop("text").startswith("on and on and ")
    assert facts == {
        "model": "canned-chat",
        "device": "cpu",
        "finish_reason": "deadline",
        "prompt_tokens": None,
        "completion_tokens": None,
        "note": "Cut off after 1 s; ask for less, or for the rest in a new call.",
    }


async def test_a_model_that_says_nothing_until_the_deadline_is_an_error(
    locate: Locate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "DEADLINE_SECONDS", 1.0)

    result = await called(locate, "complete", prompt="silent")

    assert result.is_error
    assert "No text within 1 s" in text_of(result)
    assert "Call health" in text_of(result)


async def test_complete_reports_growing_progress(locate: Locate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "PROGRESS_SECONDS", 0.0)
    seen: list[tuple[float, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))

    async with Client(create_server(NO_HOME, locate)) as client:
        await client.call_tool("complete", {"prompt": "b", "system": "a"}, progress_callback=note)

    assert seen == [(1, "11 characters so far"), (2, "20 characters so far")]


async def test_a_cancelled_call_ends_the_generation_in_the_gateway(
    locate: Locate, gateway: GatewayClient
) -> None:
    async def generating(wanted: bool) -> bool:
        return bool((await gateway.health()).queue.chat) == wanted

    async with Client(create_server(NO_HOME, locate)) as client:
        call = asyncio.create_task(client.call_tool("complete", {"prompt": "endless"}))
        await until(partial(generating, True))
        call.cancel()

        await until(partial(generating, False))


async def test_health_is_the_gateways(locate: Locate) -> None:
    result = await called(locate, "health")

    assert result.structured_content["status"] == "ok"
    assert [model["id"] for model in result.structured_content["models"]] == ["canned-embed", "canned-chat"]
    assert json.loads(text_of(result)) == result.structured_content


async def test_without_a_gateway_the_model_is_told_why(home: Home) -> None:
    broken = (sys.executable, "-c", "raise SystemExit('no such device')")

    result = await called(partial(ensure, home, command=broken), "health")

    assert result.is_error
    assert "no such device" in text_of(result)
    assert "gateway-boot.log" in text_of(result)


async def test_without_room_for_a_gateway_the_model_is_told_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that cannot write cannot say why it ended either."""
    silent = (sys.executable, "-c", "raise SystemExit(1)")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))

    result = await called(partial(ensure, home, command=silent), "health")

    assert f"The gateway cannot start: the disk of {home.log} is full." in text_of(result)
