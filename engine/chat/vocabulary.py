"""What each token of a vocabulary stands for, in bytes, and how bytes become text."""

import codecs
import json
from typing import Any

_SENTENCEPIECE_SPACE = "\u2581"


class Vocabulary:
    """From a tokenizer.json: byte-level BPE (GPT-2, SmolLM, Llama 3) or SentencePiece (Phi-3, Gemma).

    Own code because the decoders of the tokenizers library work on text: they cannot give the bytes of a
    token that holds half a character.
    """

    def __init__(self, tokenizer_json: str) -> None:
        description: dict[str, Any] = json.loads(tokenizer_json)
        decoders = _flat(description["decoder"])
        as_bytes = _byte_level if any(d["type"] == "ByteLevel" for d in decoders) else _sentencepiece
        self._bytes = {token_id: as_bytes(text) for text, token_id in description["model"]["vocab"].items()}
        self._names = {added["id"]: added["content"].encode() for added in description["added_tokens"]}
        for added in description["added_tokens"]:
            self._bytes[added["id"]] = b"" if added["special"] else self._names[added["id"]]
        self.strips_first_space = any(d["type"] == "Strip" and d.get("start") for d in decoders)
        """SentencePiece writes "▁Hello" for a word at the start of a text too."""

    def __contains__(self, token: int) -> bool:
        return token in self._bytes

    def name_of(self, token: int) -> bytes:
        """As bytes_of, but control tokens have their written form."""
        return self._names.get(token) or self.bytes_of(token)

    def bytes_of(self, token: int) -> bytes:
        """Special tokens stand for nothing; so do ids past the vocabulary, which some models pad."""
        return self._bytes.get(token, b"")


class TextStream:
    """Turns the tokens of one answer into text, whole characters at a time.

    Bytes that are not UTF-8 become U+FFFD; an unfinished character at the very end is left out.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strip_space = vocabulary.strips_first_space

    def feed(self, token: int) -> str:
        """The characters that this token completes, perhaps none."""
        text = self._decoder.decode(self._vocabulary.bytes_of(token))
        if self._strip_space and text:
            self._strip_space = False
            return text.removeprefix(" ")
        return text


def _flat(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    return decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]


def _byte_level(token: str) -> bytes:
    return b"".join(bytes((_BYTE_OF_CHARACTER[c],)) if c in _BYTE_OF_CHARACTER else c.encode() for c in token)


def _sentencepiece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes((int(token[3:5], 16),))
    return token.replace(_SENTENCEPIECE_SPACE, " ").encode()


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (openai/gpt-2, src/encoder.py, bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_characters()
