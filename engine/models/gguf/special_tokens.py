"""The tokens of a GGUF file that play a part in running it."""

from dataclasses import dataclass

from engine.models.gguf.reader import GgufFile

# A file names one token as the end, but a chat model ends its turn with one and a document with another: both
# must end an answer. <|assistant|> opens another turn; Phi-3 has it in its list (generation_config.json).
_ENDS = ("<|im_end|>", "<|end|>", "<|endoftext|>", "<|assistant|>", "<|eot_id|>", "<|end_of_text|>")


@dataclass(frozen=True)
class SpecialTokens:
    """Numbers in the vocabulary. ends: what ends an answer, the one that the file names first."""

    bos: int
    ends: tuple[int, ...]
    padding: int
    unknown: int
    adds_bos: bool
    """Whether every text starts with bos."""


def read_special_tokens(file: GgufFile) -> SpecialTokens:
    """A file without bos, padding or unknown token never uses it: the runtime wants a number all the same."""
    tokens = file.texts("tokenizer.ggml.tokens")

    def number(role: str, default: int | None = None) -> int:
        found = file.integer(f"tokenizer.ggml.{role}_token_id", default)
        if not 0 <= found < len(tokens):
            raise file.malformed(f"its {role} token has number {found}, its vocabulary {len(tokens)} tokens")
        return found

    eos = number("eos")
    ends = [eos, *(tokens.index(token) for token in _ENDS if token in tokens)]
    return SpecialTokens(
        bos=number("bos", eos),
        ends=tuple(dict.fromkeys(ends)),
        padding=number("padding", eos),
        unknown=number("unknown", 0),
        adds_bos=file.flag(
            "tokenizer.ggml.add_bos_token", default=file.text("tokenizer.ggml.model") == "llama"
        ),
    )
