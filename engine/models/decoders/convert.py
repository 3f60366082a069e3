"""Turns a GGUF file into a folder that onnxruntime-genai loads, tensor by tensor and without torch."""

from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelSupplyError
from engine.models.decoders.decoder import Weights
from engine.models.decoders.families import read_decoder
from engine.models.decoders.genai_config import write_genai_config
from engine.models.decoders.graph import MODEL_FILE, write_graph
from engine.models.decoders.quantise import Precision, is_small, precision_of
from engine.models.gguf.reader import FloatArray, GgufFile
from engine.models.gguf.special_tokens import read_special_tokens
from engine.models.gguf.tokenizer import write_tokenizer
from engine.models.progress import Progress


@dataclass(frozen=True)
class GgufInfo:
    """architecture and name as the file has them; parameters: number of weights."""

    architecture: str
    name: str
    parameters: int
    context_tokens: int


def convert(gguf_file: Path, target: Path, *, progress: Progress) -> GgufInfo:
    """Write model.onnx, model.onnx.data, genai_config.json and the tokenizer's files into `target`, a folder.

    Raises ModelSupplyError, leaving `target` incomplete, if the file is damaged or of an unsupported kind, or
    the folder cannot be written.
    """
    with GgufFile(gguf_file) as file:
        decoder, weights = read_decoder(file)
        tokens = read_special_tokens(file)

        def precision(name: str) -> Precision:
            return precision_of(file.parameters, weights.stored_as(name))

        try:
            write_tokenizer(file, tokens, target)
            write_genai_config(decoder, tokens, MODEL_FILE, target)
            write_graph(
                decoder,
                _reported(weights, file, progress),
                precision,
                target,
                prune_head=is_small(file.parameters),
            )
        except OSError as error:
            raise ModelSupplyError(f"{target} cannot be written: {error}") from error
        return GgufInfo(
            architecture=decoder.family,
            name=file.text("general.name", default=gguf_file.stem),
            parameters=file.parameters,
            context_tokens=decoder.context_tokens,
        )


def _reported(weights: Weights, file: GgufFile, progress: Progress) -> Weights:
    def read(name: str) -> FloatArray:
        tensor = weights(name)
        progress("converting", min(file.bytes_read, file.tensor_bytes), file.tensor_bytes)
        return tensor

    return read
