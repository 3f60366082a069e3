"""Builds a tokenizer.json (the format of the `tokenizers` package) from the vocabulary inside a GGUF file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from engine.errors import ModelSupplyError
from engine.models.gguf.reader import GgufFile

PRE_TOKENIZERS = ("smollm",)

# Tokens of this kind that never swallow the white space behind them in a Phi-3 vocabulary
# (its tokenizer.json; llama.cpp has the same rule in src/llama-vocab.cpp).
_PHI3_KEEPING_SPACE = ("<unk>", "<s>", "<|endoftext|>")


def write_tokenizer(file: GgufFile, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Raises ModelSupplyError for a vocabulary of an unsupported kind, and for a file without a chat template.
    """
    tokenizer = build_tokenizer(file)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(_config(file), ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    template = file.text("tokenizer.chat_template")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="")


def build_tokenizer(file: GgufFile) -> Tokenizer:
    kind = file.text("tokenizer.ggml.model")
    match kind:
        case "gpt2":
            tokenizer = _byte_level(file)
        case "llama":
            tokenizer = _sentence_piece(file)
        case _:
            raise ModelSupplyError(
                f"{file.path} has a vocabulary of kind {kind!r}, which cannot be imported. "
                f"Supported: gpt2, llama."
            )
    _add_special_tokens(tokenizer, file)
    if file.flag("tokenizer.ggml.add_bos_token", default=kind == "llama"):
        bos = file.integer("tokenizer.ggml.bos_token_id")
        name = str(file.array("tokenizer.ggml.tokens")[bos])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{name} $A", pair=f"{name} $A {name}:1 $B:1", special_tokens=[(name, bos)]
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


def _sentence_piece(file: GgufFile) -> Tokenizer:
    """As Hugging Face converts a SentencePiece BPE model (`LlamaConverter` in transformers)."""
    model = models.BPE(
        _vocabulary(file),
        _merges_of_scores(file),
        unk_token=_token(file, "unknown", default=0),
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
    """SentencePiece merges the neighbours whose union scores highest: every split of a piece is a merge."""
    tokens, kinds = file.array("tokenizer.ggml.tokens"), file.array("tokenizer.ggml.token_type")
    scores = file.array("tokenizer.ggml.scores")
    ranks = {token: i for i, token in enumerate(tokens) if kinds[i] == TokenType.NORMAL}
    merges = [
        (-scores[rank], ranks[token[:cut]], ranks[token[cut:]])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    return [(tokens[left], tokens[right]) for _, left, right in sorted(merges)]


def _vocabulary(file: GgufFile) -> dict[str, int]:
    tokens: Sequence[str] = file.array("tokenizer.ggml.tokens")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise file.malformed("its vocabulary has the same token twice")
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


def _config(file: GgufFile) -> dict[str, object]:
    sentence_piece = file.text("tokenizer.ggml.model") == "llama"
    return {
        "tokenizer_class": "LlamaTokenizer" if sentence_piece else "GPT2Tokenizer",
        "add_bos_token": file.flag("tokenizer.ggml.add_bos_token", default=sentence_piece),
        "add_prefix_space": file.flag("tokenizer.ggml.add_space_prefix", default=sentence_piece),
        "bos_token": _token(file, "bos"),
        "eos_token": _token(file, "eos"),
        "pad_token": _token(file, "padding"),
        "unk_token": _token(file, "unknown", default=0),
        "model_max_length": file.integer(f"{file.text('general.architecture')}.context_length"),
        "clean_up_tokenization_spaces": False,
    }


def _token(file: GgufFile, role: str, default: int | None = None) -> str:
    number = file.integer(f"tokenizer.ggml.{role}_token_id", default)
    tokens = file.array("tokenizer.ggml.tokens")
    if not 0 <= number < len(tokens):
        raise file.malformed(f"its {role} token is number {number} of {len(tokens)}")
    return str(tokens[number])
