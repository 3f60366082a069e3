"""What the answers of chat and text completions have in common."""

import secrets
from collections.abc import Sequence

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import Usage


class PromptTokensDetails(TypedDict):
    cached_tokens: int


class CompletionUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(16)}"


def fingerprint(revision: str | None) -> str | None:
    """Changes when the same seed may give another answer: with the model's files."""
    return f"fp_{revision[:12]}" if revision else None


def total_usage(usages: Sequence[Usage], per_prompt: int) -> CompletionUsage:
    """usages: of every choice, in order. A prompt that has several counts once."""
    of_prompts = usages[::per_prompt]
    prompt = sum(usage.prompt_tokens for usage in of_prompts)
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in of_prompts)},
    }
