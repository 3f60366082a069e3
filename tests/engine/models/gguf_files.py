"""Writes tiny GGUF files with random weights, of every architecture and quantisation that can be imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

LLAMA_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PHI3_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class TinyGguf:
    """quantisation: of the matrices in the layers; the embedding and the norms are F32.

    metadata: keys to add or replace. extra_tensor: name of a tensor to add that no importer knows.
    chat_template: "" writes that of the architecture, None none.
    """

    architecture: str = "llama"
    quantisation: str = "Q8_0"
    head_quantisation: str = "Q8_0"
    layers: int = 2
    hidden: int = 256
    intermediate: int = 512
    heads: int = 4
    kv_heads: int = 2
    context_tokens: int = 256
    window: int | None = None
    chat_template: str | None = ""
    metadata: Mapping[str, str | int] = field(default_factory=dict)
    extra_tensor: str | None = None
    seed: int = 1

    def write(self, path: Path) -> Path:
        writer = GGUFWriter(path, self.architecture)
        vocabulary = self._vocabulary()
        self._write_metadata(writer)
        vocabulary.write(writer)
        if self.chat_template is not None:
            default = PHI3_TEMPLATE if self.architecture == "phi3" else LLAMA_TEMPLATE
            writer.add_chat_template(self.chat_template or default)
        for key, value in self.metadata.items():
            writer.kv_data[0].pop(key, None)
            writer.add_string(key, value) if isinstance(value, str) else writer.add_uint32(key, value)
        self._write_tensors(writer, len(vocabulary.tokens))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def but(self, **changes: Any) -> "TinyGguf":
        return replace(self, **changes)

    def _vocabulary(self) -> "Vocabulary":
        return sentence_piece_vocabulary() if self.architecture == "phi3" else byte_level_vocabulary()

    def _write_metadata(self, writer: GGUFWriter) -> None:
        writer.add_name("Tiny random")
        writer.add_block_count(self.layers)
        writer.add_context_length(self.context_tokens)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.intermediate)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_rope_freq_base(10_000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        if self.window:
            writer.add_sliding_window(self.window)

    def _write_tensors(self, writer: GGUFWriter, tokens: int) -> None:
        random = np.random.default_rng(self.seed)
        size = self.hidden // self.heads
        attention, kv = self.heads * size, self.kv_heads * size

        def matrix(name: str, outputs: int, inputs: int, kind: str = self.quantisation) -> None:
            data = random_matrix(random, outputs, inputs, kind)
            writer.add_tensor(f"{name}.weight", data, raw_dtype=GGMLQuantizationType[kind])

        def norm(name: str) -> None:
            gains = 1 + 0.2 * random.standard_normal(self.hidden)
            writer.add_tensor(f"{name}.weight", gains.astype(np.float32))

        matrix("token_embd", tokens, self.hidden, "F32")
        for layer in range(self.layers):
            block = f"blk.{layer}"
            norm(f"{block}.attn_norm")
            if self.architecture == "phi3":
                matrix(f"{block}.attn_qkv", attention + 2 * kv, self.hidden)
                matrix(f"{block}.ffn_up", 2 * self.intermediate, self.hidden)
            else:
                matrix(f"{block}.attn_q", attention, self.hidden)
                matrix(f"{block}.attn_k", kv, self.hidden)
                matrix(f"{block}.attn_v", kv, self.hidden)
                matrix(f"{block}.ffn_gate", self.intermediate, self.hidden)
                matrix(f"{block}.ffn_up", self.intermediate, self.hidden)
            matrix(f"{block}.attn_output", self.hidden, attention)
            norm(f"{block}.ffn_norm")
            matrix(f"{block}.ffn_down", self.hidden, self.intermediate)
        norm("output_norm")
        if self.extra_tensor:
            writer.add_tensor(self.extra_tensor, np.zeros(self.hidden, np.float32))
        matrix("output", tokens, self.hidden, self.head_quantisation)


def random_matrix(random: np.random.Generator, outputs: int, inputs: int, kind: str) -> NDArray[Any]:
    """Stored bytes of a matrix whose elements have a standard deviation of 2 / sqrt(inputs)."""
    deviation = 2 / np.sqrt(inputs)
    quantisation = GGMLQuantizationType[kind]
    if kind in ("Q4_K", "Q6_K"):  # `gguf` cannot make these, so make up the blocks themselves
        return _random_k_blocks(random, outputs, inputs, quantisation, deviation)
    return quantize((deviation * random.standard_normal((outputs, inputs))).astype(np.float32), quantisation)


def _random_k_blocks(
    random: np.random.Generator, outputs: int, inputs: int, kind: GGMLQuantizationType, deviation: float
) -> NDArray[np.uint8]:
    """Block layouts: ggml-common.h. Q4_K: d, dmin, 12 bytes of scales, 128 of levels. Q6_K ends with d."""
    size, blocks = {"Q4_K": 144, "Q6_K": 210}[kind.name], inputs // 256
    data = random.integers(0, 256, (outputs, blocks, size), np.uint8)

    def set_unit(unit: float) -> None:
        d = np.frombuffer(np.float16(unit).tobytes(), np.uint8)
        if kind.name == "Q6_K":
            data[..., -2:] = d
            return
        data[..., 0:2] = d
        data[..., 2:4] = np.frombuffer(
            np.float16(7.5 * unit).tobytes(), np.uint8
        )  # centres the levels 0 to 15

    set_unit(0.01)
    set_unit(0.01 * deviation / dequantize(data.reshape(outputs, -1), kind).std())
    return data.reshape(outputs, -1)


@dataclass(frozen=True)
class Vocabulary:
    kind: str
    tokens: list[str]
    types: list[TokenType]
    bos: int
    eos: int
    scores: list[float] | None = None
    merges: list[str] | None = None

    def write(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model(self.kind)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        if self.merges is not None:
            writer.add_tokenizer_pre("smollm")
            writer.add_token_merges(self.merges)
            writer.add_add_bos_token(False)
        else:
            writer.add_add_bos_token(True)
        writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.eos)
        writer.add_unk_token_id(0)


def byte_level_vocabulary() -> Vocabulary:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    alphabet = [chr(code) for code in (*printable, *range(256, 256 + 256 - len(printable)))]
    merges = ["t h", "Ġ t", "Ġt he", "h e", "i n", "e r", "l l"]
    tokens = [*special, *alphabet, *(merge.replace(" ", "") for merge in merges)]
    types = [TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3)
    return Vocabulary("gpt2", tokens, types, bos=1, eos=2, merges=merges)


def sentence_piece_vocabulary() -> Vocabulary:
    """Laid out as Phi-3's: control tokens, bytes, pieces by falling score, special tokens, padding.

    Runs of spaces share one score, as in Mistral's vocabulary: there only the place of a pair breaks the tie.
    """
    words = ["▁t", "he", "in", "▁a", "er", "▁the", "th", "ll", "hello", "▁hello", "lo", "hel"]
    letters = ["▁", *"etaoinshrdlcumwfgypbvk.,!?THEAS0123456789é"]
    runs = ["▁" * length for length in (2, 4, 8, 16, 5, 6, 12, 13, 10, 14, 3, 9, 7, 11)]
    special = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    rows = [
        ("<unk>", TokenType.UNKNOWN, 0.0),
        ("<s>", TokenType.CONTROL, 0.0),
        ("</s>", TokenType.USER_DEFINED, 0.0),
        *((f"<0x{byte:02X}>", TokenType.BYTE, 0.0) for byte in range(256)),
        *((piece, TokenType.NORMAL, -float(rank)) for rank, piece in enumerate(words + letters)),
        *((run, TokenType.NORMAL, -1e9) for run in runs),
        *((token, TokenType.CONTROL, -1000.0) for token in special),
    ]
    rows += [(f"[PAD{number}]", TokenType.UNUSED, -1000.0) for number in range(len(rows), 352)]
    tokens, types, scores = (list(column) for column in zip(*rows, strict=True))
    return Vocabulary("llama", tokens, types, bos=1, eos=tokens.index("<|endoftext|>"), scores=scores)
