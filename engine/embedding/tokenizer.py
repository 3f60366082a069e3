"""Texts to token ids, for embedding. Runs in the gateway process: imports neither onnxruntime nor onnx."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine.errors import BadInput, ContextTooLong, ModelSupplyError
from engine.models.token_counts import PIECE_CHARACTERS, far_beyond
from engine.types import InputType

QUERY_INSTRUCTION = "Represent this sentence for searching relevant passages: "
"""What BGE's authors put in front of queries, and of queries only (huggingface.co/BAAI/bge-small-en-v1.5)."""


AT_ONCE = 64
"""Inputs that are tokenised together: each token takes a hundred bytes until its id has been copied."""


@dataclass(frozen=True)
class TokenizedBatch:
    """ids: per input, [CLS] and [SEP] included. truncated: indexes of the inputs that were cut."""

    ids: tuple[NDArray[np.int32], ...]
    truncated: tuple[int, ...]


@dataclass(frozen=True)
class _Body:
    """ids: without [CLS] and [SEP]. whole: of the whole input."""

    ids: Sequence[int]
    whole: bool


class TextTokenizer:
    """The tokenizer of one model, made from its `tokenizer.json`."""

    def __init__(self, tokenizer: Tokenizer, context_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._vocabulary_size = self._tokenizer.get_vocab_size()
        cls, sep = (self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
        assert cls is not None, "not a BERT tokenizer"
        assert sep is not None, "not a BERT tokenizer"
        self._cls, self._sep = cls, sep
        self._instruction = self._tokenizer.encode(QUERY_INSTRUCTION, add_special_tokens=False).ids

    @classmethod
    def load(cls, model_folder: Path, context_tokens: int) -> "TextTokenizer":
        """Raises ModelSupplyError when the folder's tokenizer.json cannot be used."""
        return cls(_read(model_folder / "tokenizer.json"), context_tokens)

    def encode_batch(
        self,
        inputs: Sequence[str | Sequence[int]],
        *,
        input_type: InputType = "document",
        on_overflow: Literal["error", "truncate"] = "error",
    ) -> TokenizedBatch:
        """Raises BadInput naming the first input that cannot be embedded, ContextTooLong if
        it is too long and must not be truncated.

        Inputs that are token ids already get [CLS] and [SEP] where they lack them: most callers' tokenizers
        add both, those that do not would otherwise get vectors of a form the model was never trained on.
        """
        instruction = self._instruction if input_type == "query" else []
        room = self._context_tokens - len(instruction) - 2
        ids: list[NDArray[np.int32]] = []
        truncated: list[int] = []
        for start in range(0, len(inputs), AT_ONCE):
            for index, body in enumerate(self._bodies(inputs[start : start + AT_ONCE], start, room), start):
                if len(body.ids) > room:
                    if on_overflow == "error":
                        raise self._too_long(index, body, len(instruction) + 2)
                    truncated.append(index)
                ids.append(np.array([self._cls, *instruction, *body.ids[:room], self._sep], dtype=np.int32))
        return TokenizedBatch(tuple(ids), tuple(truncated))

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """As encode_batch reads a document, however long or short it is."""
        body = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self._cls, *body, self._sep] if add_special else list(body)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """Not the very text: most BERT models know no capitals. Raises BadInput."""
        return decoded(self._tokenizer, token_ids)

    def _bodies(self, inputs: Sequence[str | Sequence[int]], first: int, room: int) -> list[_Body]:
        """Of inputs number `first` and following: never empty, and long ones only as far as needed."""
        for index, item in enumerate(inputs, first):
            if isinstance(item, str):
                _check_unicode(index, item)
        texts = [item for item in inputs if isinstance(item, str)]
        begun = [self._as_far_as_needed(text, room) for text in texts]
        encoded = zip(
            texts, begun, self._tokenizer.encode_batch_fast(begun, add_special_tokens=False), strict=True
        )
        bodies = []
        for index, item in enumerate(inputs, first):
            if isinstance(item, str):
                text, read, encoding = next(encoded)
                body = _Body(encoding.ids, whole=len(read) == len(text))
            else:
                body = _Body(self._unframed(index, item), whole=True)
            if not body.ids:
                raise BadInput(
                    f"Input {index} has no text to embed: it is empty or blank.", field="inputs", index=index
                )
            bodies.append(body)
        return bodies

    def _as_far_as_needed(self, text: str, room: int) -> str:
        if len(text) <= PIECE_CHARACTERS:
            return text
        return far_beyond(self._tokenizer, text, room)[0]

    def _unframed(self, index: int, ids: Sequence[int]) -> Sequence[int]:
        for token in ids:
            if not 0 <= token < self._vocabulary_size:
                raise BadInput(
                    f"Input {index} has the token id {token}, but this model's ids go from 0 to "
                    f"{self._vocabulary_size - 1}. Send text, or ids made by this model's own tokenizer.",
                    field="inputs",
                    index=index,
                )
        start = 1 if ids and ids[0] == self._cls else 0
        end = len(ids) - 1 if ids and ids[-1] == self._sep else len(ids)
        return ids[start:end]

    def _too_long(self, index: int, body: _Body, framing_tokens: int) -> ContextTooLong:
        return ContextTooLong(
            limit_tokens=self._context_tokens,
            actual_tokens=len(body.ids) + framing_tokens,
            field="inputs",
            index=index,
            at_least=not body.whole,
        )


def decoded(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """Control tokens written out. Raises BadInput for an id outside the vocabulary."""
    size = tokenizer.get_vocab_size()
    if unknown := [token for token in token_ids if not 0 <= token < size]:
        raise BadInput(
            f"{unknown[0]} is no token id of this model; they go from 0 to {size - 1}.", field="token_ids"
        )
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=False))


def _read(file: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelSupplyError(f"{file} cannot be read: {error}. Fetch the model again.") from error
    if None in (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")):
        raise ModelSupplyError(f"{file} has no [CLS] and [SEP]: it does not belong to a BERT encoder.")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check_unicode(index: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"Input {index} is not valid Unicode: half of a surrogate pair stands alone at {error.start}.",
            field="inputs",
            index=index,
        ) from error
