"""Simon Willison's `llm` command, which many have in their shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import CAPITAL, CHAT, Address

pytest.importorskip("llm")


def test_it_answers_from_the_shell(address: Address, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: local\n  model_name: {CHAT}\n  api_base: {address.base_url}\n", encoding="utf-8"
    )
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "llm",
            "-m",
            "local",
            "-o",
            "temperature",
            "0",
            "-o",
            "max_tokens",
            "40",
            CAPITAL,
        ],
        env=os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert "Paris" in answer.stdout
