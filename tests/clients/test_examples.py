"""The examples run as they are."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Address, Node, printed_by

EXAMPLES = Path(__file__).parents[2] / "examples"


def printed(address: Address, example: str, *arguments: str) -> str:
    return printed_by(address, sys.executable, EXAMPLES / example, *arguments)


def test_openai_chat_answers(address: Address) -> None:
    assert "Paris" in printed(address, "openai_chat.py")


def test_openai_node_answers(address: Address, node: Node) -> None:
    assert "Paris" in node.printed(EXAMPLES / "openai_node.mjs", address)


def test_langchain_chat_finds_the_text_and_answers(address: Address) -> None:
    pytest.importorskip("langchain_openai")
    found, *answer = printed(address, "langchain_chat.py").splitlines()

    assert found == "Paris is the capital of France."
    assert "Paris" in "\n".join(answer)


def test_semantic_search_says_when_a_folder_has_no_text(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    search = [sys.executable, str(EXAMPLES / "semantic_search.py"), str(tmp_path), "anything"]
    done = subprocess.run(search, capture_output=True, encoding="utf-8", timeout=60, check=False)

    assert done.stderr.startswith("There is no text in")


def test_semantic_search_puts_the_file_that_answers_first(address: Address, tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    (tmp_path / "bread.txt").write_text("Mix flour, water and yeast.\n\nBake for forty minutes.", "utf-8")
    (tmp_path / "rivers.txt").write_text("The Rhine flows north to the sea.", "utf-8")
    (tmp_path / "cats.txt").write_text("Cats sleep for most of the day.", "utf-8")

    first, *_ = printed(
        address, "semantic_search.py", str(tmp_path), "how long is it in the oven"
    ).splitlines()

    assert "bread.txt" in first
