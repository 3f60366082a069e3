"""Makes a model of Phi-3-mini-4k-instruct's size and form with random weights, to measure speed and memory.

    python -m benchmarks.phi3_random FOLDER

writes FOLDER/phi3-random.gguf (Q4_0, 2.0 GiB), imports it as `npu-gateway import` does, and leaves the result
(2.6 GiB), which talks gibberish, in FOLDER/model. It takes 3 GiB of memory and some minutes.
"""

import itertools
import string
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray

from benchmarks.support.arguments import parser
from engine.models.decoders.convert import convert
from engine.models.decoders.graph import MODEL_FILE
from engine.models.progress import silent

PUBLISHED_BYTES = 2_722_861_056
"""Of the .onnx.data file in microsoft/Phi-3-mini-4k-instruct-onnx, cpu-int4-rtn-block-32-acc-level-4."""

ARCHITECTURE = "phi3"
LAYERS = 32
HIDDEN = 3072
INTERMEDIATE = 8192
HEADS = 32
VOCABULARY = 32_064
CONTEXT_TOKENS = 4096
WINDOW_TOKENS = 2047
Q4_0 = GGMLQuantizationType.Q4_0

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|assistant|>",
    *(f"<|placeholder{number}|>" for number in range(1, 5)),
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
)
FIRST_SPECIAL_TOKEN = 32_000
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def write_gguf(file: Path) -> None:
    writer = GGUFWriter(file, ARCHITECTURE)
    writer.add_name("Phi-3-mini with random weights")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_sliding_window(WINDOW_TOKENS)
    _add_vocabulary(writer)
    tensors = dict(_tensors())
    for name, shape in tensors.items():
        kind = GGMLQuantizationType.F32 if len(shape) == 1 else Q4_0
        size = shape[0] * 4 if len(shape) == 1 else shape[0] * shape[1] // 32 * 18
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for shape in tensors.values():
        writer.write_tensor_data(_draw(random, shape))
    writer.close()


def _tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", (HIDDEN,)
        yield f"{block}.attn_qkv.weight", (3 * HIDDEN, HIDDEN)
        yield f"{block}.attn_output.weight", (HIDDEN, HIDDEN)
        yield f"{block}.ffn_norm.weight", (HIDDEN,)
        yield f"{block}.ffn_up.weight", (2 * INTERMEDIATE, HIDDEN)
        yield f"{block}.ffn_down.weight", (HIDDEN, INTERMEDIATE)
    yield "output_norm.weight", (HIDDEN,)
    yield "output.weight", (VOCABULARY, HIDDEN)


def _draw(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.generic]:
    values = random.standard_normal(shape, np.float32)
    if len(shape) == 1:
        return 1 + np.float32(0.1) * values
    values *= np.float32(shape[-1] ** -0.5)
    return quantize(values, Q4_0)


def _add_vocabulary(writer: GGUFWriter) -> None:
    """Layout and size are the real one's, the pieces are made up."""
    pieces = list(itertools.islice(_pieces(), FIRST_SPECIAL_TOKEN - 259))
    padding = VOCABULARY - FIRST_SPECIAL_TOKEN - len(SPECIAL_TOKENS)
    rows = [
        ("<unk>", TokenType.UNKNOWN),
        ("<s>", TokenType.CONTROL),
        ("</s>", TokenType.USER_DEFINED),
        *((f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)),
        *((piece, TokenType.NORMAL) for piece in pieces),
        *((token, TokenType.CONTROL) for token in SPECIAL_TOKENS),
        *((f"[PAD{number}]", TokenType.UNUSED) for number in range(padding)),
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in rows])
    writer.add_token_types([kind for _, kind in rows])
    writer.add_token_scores([-float(rank) for rank in range(len(rows))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(FIRST_SPECIAL_TOKEN)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _pieces() -> Iterator[str]:
    """Characters, then all pairs and triples of letters, also at starts of words: three letters a token."""
    letters = string.ascii_lowercase
    yield from "▁" + letters + string.ascii_uppercase + string.digits + string.punctuation
    for length in (1, 2, 3):
        for word in itertools.product(letters, repeat=length):
            yield "▁" + "".join(word)
            if length > 1:
                yield "".join(word)


def main() -> None:
    options = parser("phi3_random", __doc__)
    options.add_argument("folder", type=Path)
    folder: Path = options.parse_args().folder
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)

    started = time.perf_counter()
    write_gguf(folder / "phi3-random.gguf")
    print(f"written in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    convert(folder / "phi3-random.gguf", model, progress=silent)
    print(f"imported in {time.perf_counter() - started:.0f} s")
    size = (model / f"{MODEL_FILE}.data").stat().st_size
    print(f"{MODEL_FILE}.data: {size:,} bytes, the published model has {PUBLISHED_BYTES:,}")


if __name__ == "__main__":
    main()
