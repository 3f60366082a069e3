"""What a model sees: descriptions, results, errors."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from engine.remote.client import Locate
from engine.settings import Home
from mcp_server import files
from mcp_server.server import create_server
from tests.mcp_server.calls import GOLDEN, called, text_of
from tests.mcp_server.canned import NO_HOME


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_tool_list_is_the_golden_one(locate: Locate, mode: Any) -> None:
    """Whoever changes a word that models read changes the golden file in the same commit."""
    async with Client(create_server(NO_HOME, locate), mode=mode) as client:
        listed = (await client.list_tools()).tools

    shown = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed]
    assert shown == json.loads(GOLDEN.read_text(encoding="utf-8"))


async def test_clients_need_not_ask_for_the_tools_again(locate: Locate) -> None:
    async with Client(create_server(NO_HOME, locate)) as client:
        listed = await client.list_tools()

    assert (listed.ttl_ms, listed.cache_scope) == (600_000, "public")


async def test_embed_sums_up_by_default(locate: Locate) -> None:
    result = await called(locate, "embed", texts=["a", "b"])

    assert result.structured_content == {
        "model": "canned-embed",
        "dimensions": 4,
        "count": 2,
        "total_tokens": 6,
        "devices": ["npu"],
        "npu_emulated": True,
        "similarities": [],
        "vectors": [],
        "file": "",
        "note": "Ask for output='similarities', 'vectors' or 'file' to see more.",
    }
    assert text_of(result) == (
        "2 vectors of 4 numbers from canned-embed on npu (emulated), 6 tokens read. "
        "Ask for output='similarities', 'vectors' or 'file' to see more."
    )


async def test_embed_shows_the_vectors_on_request_in_both_channels(locate: Locate) -> None:
    result = await called(locate, "embed", texts=["a", "b"], input_type="query", output="vectors")

    vectors = [[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    assert result.structured_content["vectors"] == vectors
    assert [json.loads(block.text) for block in result.content[1:]] == vectors


async def test_embed_compares_the_texts_on_request_in_both_channels(locate: Locate) -> None:
    """The canned vector of a text that starts with an x lies between two axes."""
    result = await called(locate, "embed", texts=["a", "b", "x"], output="similarities")

    similarities = [[1.0, 1.0, 0.6], [1.0, 1.0, 0.6], [0.6, 0.6, 1.0]]
    assert result.structured_content["similarities"] == similarities
    assert result.structured_content["vectors"] == []
    assert result.content[0].text.endswith("Row i, column j: the cosine of texts i and j.")
    assert [json.loads(block.text) for block in result.content[1:]] == similarities


async def test_embed_writes_a_file_on_request_and_names_it_in_both_channels(
    locate: Locate, home: Home
) -> None:
    result = await called(locate, "embed", home=home, texts=["a"] * 64, output="file")

    (file,) = home.out.iterdir()
    facts, path, link = result.content
    assert result.structured_content["file"] == path.text == str(file)
    assert result.structured_content["vectors"] == []
    assert facts.text.startswith("64 vectors of 4 numbers")
    assert link.uri == f"gateway://vectors/{file.stem}"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits: the user's folder protects it")
async def test_only_this_user_can_read_the_file(locate: Locate, home: Home) -> None:
    result = await called(locate, "embed", home=home, texts=["a"], output="file")

    file = Path(result.structured_content["file"])
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]


async def test_the_oldest_files_give_way_to_new_ones(
    locate: Locate, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "KEEP_FILES", 2)
    first, *others = [
        Path(
            (await called(locate, "embed", home=home, texts=["a"], output="file")).structured_content["file"]
        )
        for _ in range(2)
    ]
    os.utime(first, (0, 0))
    newest = await called(locate, "embed", home=home, texts=["a"], output="file")

    assert set(home.out.iterdir()) == {*others, Path(newest.structured_content["file"])}


async def test_a_new_file_stays_when_the_clock_went_back(
    locate: Locate, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "KEEP_FILES", 1)
    first = await called(locate, "embed", home=home, texts=["a"], output="file")
    os.utime(first.structured_content["file"], (2**32, 2**32))

    newest = await called(locate, "embed", home=home, texts=["a"], output="file")

    assert list(home.out.iterdir()) == [Path(newest.structured_content["file"])]


async def test_a_file_that_cannot_be_written_is_an_error_with_another_way(locate: Locate, home: Home) -> None:
    home.out.write_text("a file where the folder should be")

    result = await called(locate, "embed", home=home, texts=["a"], output="file")

    assert result.is_error
    assert str(home.out) in text_of(result)
    assert "another output" in text_of(result)


@pytest.mark.parametrize(("output", "limit"), [("similarities", 32), ("vectors", 8)])
async def test_more_than_a_result_can_hold_is_refused_with_another_way(
    locate: Locate, output: str, limit: int
) -> None:
    full = await called(locate, "embed", texts=["a"] * limit, output=output)
    over = await called(locate, "embed", texts=["a"] * (limit + 1), output=output)

    assert len(full.structured_content[output]) == limit
    assert over.is_error
    assert f"at most {limit} texts" in text_of(over)
    assert "/v1/embeddings" in text_of(over)


@pytest.mark.parametrize(
    ("tool", "arguments", "named"),
    [
        ("embed", {"texts": ["a"], "normalize": True}, "normalize"),
        ("embed", {"texts": []}, "texts"),
        ("embed", {"texts": ["a", ""]}, "texts.1"),
        ("embed", {"texts": ["a"] * 65}, "texts"),
        ("embed", {"texts": ["a"], "output": "all"}, "output"),
        ("complete", {"prompt": "a", "top_p": 1}, "top_p"),
        ("complete", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ("complete", {"prompt": "a", "temperature": 99}, "temperature"),
        ("complete", {"prompt": "a", "json_schema": "{"}, "is not JSON"),
        ("complete", {"prompt": "a", "json_schema": "[" * 20_000}, "is not JSON"),
        ("complete", {"prompt": "a", "json_schema": "true"}, "must be a JSON object"),
        ("complete", {"prompt": "a", "json_schema": " " * 20_001}, "json_schema"),
    ],
)
async def test_wrong_arguments_are_refused_by_name(
    locate: Locate, tool: str, arguments: dict[str, Any], named: str
) -> None:
    result = await called(locate, tool, **arguments)

    assert result.is_error
    assert named in text_of(result)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        pytest.param(
            "embed",
            {"texts": ["a"], "normalize": True},
            "normalize is no argument of this tool. Correct this and call again; "
            "the arguments are: texts, input_type, output.",
            id="too many",
        ),
        pytest.param(
            "embed",
            {"texts": None, "output": "all"},
            "texts is missing; output must be 'summary', 'similarities', 'vectors' or 'file'. "
            "Correct this and call again; the arguments are: texts, input_type, output.",
            id="two faults",
        ),
        pytest.param(
            "complete",
            {"prompt": "", "max_tokens": 1.5, "temperature": 3, "json_schema": [1]},
            "prompt must not be empty; max_tokens must be a whole number; temperature must be 2 or less; "
            "json_schema must be a text. Correct this and call again; "
            "the arguments are: prompt, system, max_tokens, temperature, json_schema.",
            id="every one",
        ),
    ],
)
async def test_wrong_arguments_are_told_in_one_sentence_with_the_next_step(
    locate: Locate, tool: str, arguments: dict[str, Any], words: str
) -> None:
    result = await called(locate, tool, **arguments)

    assert result.is_error
    assert text_of(result) == f"Error executing tool {tool}: {words}"


async def test_a_tool_that_is_not_there_is_refused_with_those_that_are(locate: Locate) -> None:
    result = await called(locate, "rerun")

    assert result.is_error
    assert text_of(result) == "There is no tool rerun. The tools are: embed, complete, health."


@pytest.mark.parametrize(
    ("tool", "arguments", "plain"),
    [
        ("embed", {"texts": ["a"], "input_type": None, "output": None}, {"texts": ["a"]}),
        (
            "complete",
            {
                "prompt": "a",
                "system": None,
                "max_tokens": None,
                "temperature": None,
                "json_schema": None,
                "stop": None,
            },
            {"prompt": "a"},
        ),
    ],
)
async def test_null_is_an_argument_left_out(
    locate: Locate, tool: str, arguments: dict[str, Any], plain: dict[str, Any]
) -> None:
    result = await called(locate, tool, **arguments)

    assert not result.is_error
    assert result.structured_content == (await called(locate, tool, **plain)).structured_content


async def test_arguments_of_a_tool_that_has_none_are_ignored(locate: Locate) -> None:
    """Models that think they must write one mean nothing by it."""
    result = await called(locate, "health", verbose=True)

    assert not result.is_error
