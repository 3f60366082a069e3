"""Texts to token ids and back, for callers who want to count or to look; no model has to be loaded for it."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from engine.chat.prompt import is_control
from engine.embedding.tokenizer import TextTokenizer, decoded
from engine.errors import ModelSupplyError
from engine.models.store import InstalledModel


class Codec(Protocol):
    """What the tokenizer of either kind of model can do."""

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """add_special: with the control tokens that frame a text of this model."""

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """Control tokens are written out. Raises BadInput for an id that is not in the vocabulary."""


class ChatCodec:
    """A chat model's vocabulary. Text never becomes a control token, as in prompts."""

    def __init__(self, tokenizer_json: str) -> None:
        description = json.loads(tokenizer_json)
        for token in description["added_tokens"]:
            token["special"] = is_control(token)
        self._tokenizer = Tokenizer.from_str(json.dumps(description))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True

    @classmethod
    def load(cls, model_folder: Path) -> "ChatCodec":
        """Raises ModelSupplyError."""
        file = model_folder / "tokenizer.json"
        try:
            return cls(file.read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelSupplyError(f"{file} cannot be read: {error}. Fetch the model again.") from error

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return decoded(self._tokenizer, token_ids)


class Codecs:
    """Reads the tokenizer of a model when it is first asked for, in a thread, and keeps it."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[InstalledModel, Codec]] = {}

    async def of(self, installed: InstalledModel) -> Codec:
        """Raises ModelSupplyError."""
        known = self._loaded.get(installed.id)
        if known and known[0] == installed:
            return known[1]
        codec = await asyncio.to_thread(_load, installed)
        self._loaded[installed.id] = (installed, codec)
        return codec


def _load(installed: InstalledModel) -> Codec:
    if installed.kind == "embedding":
        return TextTokenizer.load(installed.folder, installed.context_tokens)
    return ChatCodec.load(installed.folder)
