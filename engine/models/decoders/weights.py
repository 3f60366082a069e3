"""The weights of a decoder in a GGUF file: which tensors make up each of them, in every family.

Tensor names: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py.
"""

from typing import ClassVar

from engine.models.decoders.decoder import Decoder
from engine.models.gguf.reader import FloatArray, GgufFile


class GgufWeights:
    """The Weights of a Decoder. This class knows the tensors that the families name alike."""

    whole: ClassVar[dict[str, list[str]]] = {
        "embedding": ["token_embd"],
        "final_norm": ["output_norm"],
        "head": ["output"],
    }
    layered: ClassVar[dict[str, list[str]]] = {
        "attention_norm": ["attn_norm"],
        "attention_output": ["attn_output"],
        "mlp_norm": ["ffn_norm"],
        "down": ["ffn_down"],
    }

    def __init__(self, file: GgufFile, decoder: Decoder) -> None:
        self.file = file
        self.decoder = decoder

    def __call__(self, name: str) -> FloatArray:
        part = name.rpartition(".")[2]
        tensors = [self.file.tensor(source) for source in self.sources(name)]
        try:
            tensor = self.combine(part, *tensors)
        except ValueError as error:  # numpy's, about shapes that do not fit together
            raise self.file.malformed(f"{name}: {error}") from error
        if tensor.shape != self.decoder.shape_of(name):
            raise self.file.malformed(
                f"{name} is {tensor.shape}, but the metadata says {self.decoder.shape_of(name)}"
            )
        return tensor

    def stored_as(self, name: str) -> set[str]:
        return {self.file.quantisation(source) for source in self.sources(name)}

    def sources(self, name: str) -> list[str]:
        """The names of the tensors that make up a weight."""
        layer, _, part = name.removeprefix("layers.").rpartition(".")
        if part == "head" and not self.file.has_tensor("output.weight"):
            part = "embedding"  # tied
        if not layer:
            return [f"{tensor}.weight" for tensor in self.whole[part]]
        return [f"blk.{layer}.{tensor}.weight" for tensor in self.layered[part]]

    def tensor_names(self) -> set[str]:
        layers = range(self.decoder.layers)
        names = [*self.whole, *(f"layers.{layer}.{part}" for layer in layers for part in self.layered)]
        return {source for name in names for source in self.sources(name)}

    def combine(self, part: str, *tensors: FloatArray) -> FloatArray:
        (tensor,) = tensors
        return tensor
