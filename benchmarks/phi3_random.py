"""Makes a model of Phi-3-mini-4k-instruct's size and form with random weights, to measure speed and memory.

    python benchmarks/phi3_random.py FOLDER

The folder is what an import of the real model's GGUF file gives, down to the byte count of its weights, but
talks gibberish. It takes 2.6 GiB of disk and, while it is made, 0.7 GiB of memory and a minute or more.
"""

import argparse
import itertools
import string
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

from engine.models.gguf.decoder import Decoder, FloatArray, Weights, inverse_frequencies
from engine.models.gguf.genai_config import write_genai_config
from engine.models.gguf.graph import MODEL_FILE, write_graph
from engine.models.gguf.quantise import precision_of
from engine.models.gguf.reader import GgufFile
from engine.models.gguf.special_tokens import read_special_tokens
from engine.models.gguf.tokenizer import write_tokenizer

PUBLISHED_BYTES = 2_722_861_056
"""Of the .onnx.data file in microsoft/Phi-3-mini-4k-instruct-onnx, cpu-int4-rtn-block-32-acc-level-4."""
PARAMETERS = 3_821_079_552

PHI3_MINI_4K = Decoder(
    family="phi3",
    layers=32,
    hidden=3072,
    intermediate=8192,
    heads=32,
    kv_heads=32,
    head_size=96,
    vocabulary=32_064,
    context_tokens=4096,
    norm_epsilon=1e-5,
    inverse_frequencies=inverse_frequencies(10_000.0, 96),
    attention_window=2047,
)

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


def make(folder: Path) -> None:
    """Write the model into an existing folder."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        GgufFile(_write_vocabulary(Path(scratch) / "vocabulary.gguf")) as file,
    ):
        tokens = read_special_tokens(file)
        write_tokenizer(file, tokens, folder)
    write_genai_config(PHI3_MINI_4K, tokens, MODEL_FILE, folder)
    precision = precision_of(PARAMETERS, {"F16"})
    write_graph(PHI3_MINI_4K, _random_weights(), lambda _: precision, folder, prune_head=False)


def _random_weights() -> Weights:
    random = np.random.default_rng(0)

    def draw(name: str) -> FloatArray:
        shape = PHI3_MINI_4K.shape_of(name)
        values = random.standard_normal(shape, np.float32)
        if len(shape) == 1:
            return 1 + np.float32(0.1) * values
        values *= np.float32(shape[-1] ** -0.5)
        return values

    return draw


def _write_vocabulary(path: Path) -> Path:
    """A GGUF file of a vocabulary alone: layout and size are the real one's, the pieces are made up."""
    pieces = list(itertools.islice(_pieces(), FIRST_SPECIAL_TOKEN - 259))
    padding = PHI3_MINI_4K.vocabulary - FIRST_SPECIAL_TOKEN - len(SPECIAL_TOKENS)
    rows = [
        ("<unk>", TokenType.UNKNOWN),
        ("<s>", TokenType.CONTROL),
        ("</s>", TokenType.USER_DEFINED),
        *((f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)),
        *((piece, TokenType.NORMAL) for piece in pieces),
        *((token, TokenType.CONTROL) for token in SPECIAL_TOKENS),
        *((f"[PAD{number}]", TokenType.UNUSED) for number in range(padding)),
    ]
    writer = GGUFWriter(path, PHI3_MINI_4K.family)
    writer.add_context_length(PHI3_MINI_4K.context_tokens)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in rows])
    writer.add_token_types([kind for _, kind in rows])
    writer.add_token_scores([-float(rank) for rank in range(len(rows))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(FIRST_SPECIAL_TOKEN)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    started = time.perf_counter()
    make(folder)

    size = (folder / f"{MODEL_FILE}.data").stat().st_size
    print(f"{folder}: made in {time.perf_counter() - started:.0f} s")
    print(f"{MODEL_FILE}.data: {size:,} bytes, the published model has {PUBLISHED_BYTES:,}")


if __name__ == "__main__":
    main()
