"""The plainest use of onnxruntime-genai on an imported folder."""

import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import numpy as np
import onnxruntime_genai as genai
from numpy.typing import NDArray


class Runtime:
    def __init__(self, folder: Path) -> None:
        self.model = genai.Model(str(folder))

    def generator(self, max_length: int = 256) -> genai.Generator:
        parameters = genai.GeneratorParams(self.model)
        parameters.set_search_options(max_length=max_length)
        return genai.Generator(self.model, parameters)

    def next_logits(self, tokens: list[int]) -> NDArray[np.float32]:
        generator = self.generator()
        generator.append_tokens(np.array([tokens], np.int32))
        return np.asarray(generator.get_logits()[0, -1], np.float32)

    def logits_token_by_token(self, tokens: list[int]) -> NDArray[np.float32]:
        generator = self.generator()
        rows = []
        for token in tokens:
            generator.append_tokens(np.array([[token]], np.int32))
            rows.append(generator.get_logits()[0, -1].copy())
        return np.array(rows)

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        generator = self.generator()
        generator.append_tokens(np.array([tokens], np.int32))
        return self.continue_greedily(generator, count)

    def continue_greedily(self, generator: genai.Generator, count: int) -> list[int]:
        """At most so many tokens; the one that ends the answer is the last."""
        written: list[int] = []
        while len(written) < count and not generator.is_done():
            generator.generate_next_token()
            written.append(int(generator.get_next_tokens()[0]))
        return written
