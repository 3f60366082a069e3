"""Builds a tokenizer.json (the format of the `tokenizers` package) from the vocabulary inside a GGUF file."""

import json
from collections.abc import Sequence
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
        bos = str(file.array("tokenizer.ggml.tokens")[special.bos])
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
    merges = [(left, right) for left, right in map(str.split, file.array("tokenizer.ggml.merges"))]
    tokenizer = Tokenizer(models.BPE(_vocabulary(file), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(file: GgufFile, special: SpecialTokens) -> Tokenizer:
    """As Hugging Face converts a SentencePiece BPE model (`LlamaConverter` in transformers)."""
    model = models.BPE(
        _vocabulary(file),
        _merges_of_scores(file),
        unk_token=file.array("tokenizer.ggml.tokens")[special.unknown],
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
    kinds, scores = file.array("tokenizer.ggml.token_type"), file.array("tokenizer.ggml.scores")
    tokens = zip(file.array("tokenizer.ggml.tokens"), scores, kinds, strict=True)
    pieces = {token: score for token, score, kind in tokens if kind == TokenType.NORMAL}
    merges = [
        (score, len(left), left, right)
        for piece, score in pieces.items()
        for left, right in ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        if left in pieces and right in pieces
    ]
    return [(left, right) for _, _, left, right in sorted(merges, reverse=True)]


def _vocabulary(file: GgufFile) -> dict[str, int]:
    tokens: Sequence[str] = file.array("tokenizer.ggml.tokens")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise file.malformed("its vocabulary has the same token twice")
    for column in ("token_type", "scores"):
        key = f"tokenizer.ggml.{column}"
        if key in file and len(file.array(key)) != len(tokens):
            raise file.malformed(f"the length of {key!r} is not that of the vocabulary")
    return vocabulary


def _add_special_tokens(tokenizer: Tokenizer, file: GgufFile) -> None:
    phi3 = file.text("general.architecture") == "phi3"
    kinds = file.array("tokenizer.ggml.token_type")
    for token, kind in zip(file.array("tokenizer.ggml.tokens"), kinds, strict=True):
        if kind not in (TokenType.CONTROL, TokenType.USER_DEFINED):
            continue
        control = kind == TokenType.CONTROL
        rstrip = phi3 and token not in _PHI3_KEEPING_SPACE
        added = AddedToken(token, special=control, normalized=False, rstrip=rstrip)
        (tokenizer.add_special_tokens if control else tokenizer.add_tokens)([added])


def _config(file: GgufFile, special: SpecialTokens) -> dict[str, object]:
    tokens = file.array("tokenizer.ggml.tokens")
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
