"""Builds a tokenizer.json (the format of the `tokenizers` package) from the vocabulary inside a GGUF file."""

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from engine.errors import ModelSupplyError
from engine.models.gguf.reader import GgufFile
from engine.models.gguf.special_tokens import SpecialTokens

PRE_TOKENIZERS = ("smollm",)

# Tokens of this kind that never swallow the white space behind them in a Phi-3 vocabulary
# (its tokenizer.json; llama.cpp has the same rule in src/llama-vocab.cpp).
_PHI3_KEEPING_SPACE = ("<unk>", "<s>", "<|endoftext|>")


_MOST_TOKEN_CHARACTERS = 256
_MOST_CHARACTERS = 1 << 23
"""Of a vocabulary: every place where a token can be cut in two is looked at. Gemma's has 2 million."""


def write_tokenizer(file: GgufFile, special: SpecialTokens, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Raises ModelSupplyError for a vocabulary of an unsupported kind, and for a file without a chat template.
    """
    if "tokenizer.chat_template" not in file:
        raise ModelSupplyError(
            f"{file.path} has no chat template, so it is no chat model. "
            "Look for its 'instruct' or 'chat' variant."
        )
    tokenizer = _build(file, special)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(_config(file, special), ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    template = file.text("tokenizer.chat_template")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="")


def _build(file: GgufFile, special: SpecialTokens) -> Tokenizer:
    kind = file.text("tokenizer.ggml.model")
    match kind:
        case "gpt2":
            tokenizer = _byte_level(file)
        case "llama":
            tokenizer = _sentence_piece(file, special)
        case _:
            raise ModelSupplyError(
                f"{file.path} has a vocabulary of kind {kind!r}, which cannot be imported. "
                f"Supported: gpt2, llama."
            )
    _add_special_tokens(tokenizer, file)
    if special.adds_bos:
        bos = str(file.texts("tokenizer.ggml.tokens")[special.bos])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, special.bos)]
        )
    return tokenizer


def _byte_level(file: GgufFile) -> Tokenizer:
    pre = file.text("tokenizer.ggml.pre", default="default")
    if pre not in PRE_TOKENIZERS:
        raise ModelSupplyError(
            f"{file.path} splits text as {pre!r} does, which cannot be imported. "
            f"Supported: {', '.join(PRE_TOKENIZERS)}."
        )
    vocabulary = _vocabulary(file)
    tokenizer = Tokenizer(models.BPE(vocabulary, _merges(file, vocabulary)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(file: GgufFile, vocabulary: Container[str]) -> list[tuple[str, str]]:
    merges = []
    for merge in file.texts("tokenizer.ggml.merges"):
        left, _, right = merge.partition(" ")
        if any(part not in vocabulary for part in (left, right, left + right)):
            raise file.malformed(f"its vocabulary lacks a part of the merge {merge[:80]!r}")
        merges.append((left, right))
    return merges


def _sentence_piece(file: GgufFile, special: SpecialTokens) -> Tokenizer:
    """As Hugging Face converts a SentencePiece BPE model (`LlamaConverter` in transformers)."""
    model = models.BPE(
        _vocabulary(file),
        _merges_of_scores(file),
        unk_token=file.texts("tokenizer.ggml.tokens")[special.unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    spaces: list[Any] = [normalizers.Replace(" ", "▁")]
    unspaces: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if file.flag("tokenizer.ggml.add_space_prefix", default=True):
        spaces.insert(0, normalizers.Prepend("▁"))
        unspaces.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(unspaces)
    return tokenizer


def _merges_of_scores(file: GgufFile) -> list[tuple[str, str]]:
    """SentencePiece merges the neighbours whose union scores highest: every split of a piece is a merge.

    Among equals the longest left part comes first. In any other order runs of one character, such as
    indentation, are cut differently (found by comparing with `sentencepiece` on Mistral's vocabulary).
    """
    kinds, scores = file.integers("tokenizer.ggml.token_type"), file.numbers("tokenizer.ggml.scores")
    tokens = zip(file.texts("tokenizer.ggml.tokens"), scores, kinds, strict=True)
    pieces = {token: score for token, score, kind in tokens if kind == TokenType.NORMAL}
    merges = [
        (score, len(left), left, right)
        for piece, score in pieces.items()
        for left, right in ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        if left in pieces and right in pieces
    ]
    return [(left, right) for _, _, left, right in sorted(merges, reverse=True)]


def _vocabulary(file: GgufFile) -> dict[str, int]:
    tokens: Sequence[str] = file.texts("tokenizer.ggml.tokens")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise file.malformed("its vocabulary has the same token twice")
    if max(map(len, tokens), default=0) > _MOST_TOKEN_CHARACTERS or sum(map(len, tokens)) > _MOST_CHARACTERS:
        raise file.malformed("its vocabulary has tokens that are longer than those of any language")
    for key, column in (
        ("tokenizer.ggml.token_type", file.integers),
        ("tokenizer.ggml.scores", file.numbers),
    ):
        if key in file and len(column(key)) != len(tokens):
            raise file.malformed(f"the length of {key!r} is not that of the vocabulary")
    return vocabulary


def _add_special_tokens(tokenizer: Tokenizer, file: GgufFile) -> None:
    phi3 = file.text("general.architecture") == "phi3"
    kinds = file.integers("tokenizer.ggml.token_type")
    kind_of = dict(zip(file.texts("tokenizer.ggml.tokens"), kinds, strict=True))

    def added(kind: TokenType) -> list[AddedToken]:
        return [
            AddedToken(
                token,
                special=kind == TokenType.CONTROL,
                normalized=False,
                rstrip=phi3 and token not in _PHI3_KEEPING_SPACE,
            )
            for token in kind_of
            if kind_of[token] == kind
        ]

    tokenizer.add_special_tokens(added(TokenType.CONTROL))
    tokenizer.add_tokens(added(TokenType.USER_DEFINED))


def _config(file: GgufFile, special: SpecialTokens) -> dict[str, object]:
    tokens = file.texts("tokenizer.ggml.tokens")
    sentence_piece = file.text("tokenizer.ggml.model") == "llama"
    return {
        "tokenizer_class": "LlamaTokenizer" if sentence_piece else "GPT2Tokenizer",
        "add_bos_token": special.adds_bos,
        "add_prefix_space": file.flag("tokenizer.ggml.add_space_prefix", default=sentence_piece),
        "bos_token": tokens[special.bos],
        "eos_token": tokens[special.ends[0]],
        "pad_token": tokens[special.padding],
        "unk_token": tokens[special.unknown],
        "model_max_length": file.integer(f"{file.text('general.architecture')}.context_length"),
        "clean_up_tokenization_spaces": False,
    }
