"""Real English and code to embed, found on every machine: the docstrings of Python's standard library.

The texts depend on the version of Python only, so two runs on one machine see the same ones.
"""

import random
from dataclasses import dataclass

from engine.bench.docstrings import docstrings

LONG_WORDS = 600
"""Always more than 512 tokens: nearly every word and punctuation mark is one token or more."""


@dataclass(frozen=True)
class Corpora:
    """short: one sentence each. mixed: whole docstrings. long: more than the 512 tokens a model reads."""

    short: tuple[str, ...]
    mixed: tuple[str, ...]
    long: tuple[str, ...]


def corpora(*, short: int = 2048, mixed: int = 1024, long: int = 128) -> Corpora:
    """So many texts of each kind, all different."""
    texts = sorted(set(docstrings()))
    random.Random(0).shuffle(texts)
    sentences = dict.fromkeys(text.partition("\n")[0] for text in texts)
    words = " ".join(texts).split()
    passages = [" ".join(words[i : i + LONG_WORDS]) for i in range(0, long * LONG_WORDS, LONG_WORDS)]
    return Corpora(
        short=tuple([sentence for sentence in sentences if sentence.count(" ") >= 5][:short]),
        mixed=tuple([text for text in texts if text.count(" ") >= 15][:mixed]),
        long=tuple(passages),
    )
