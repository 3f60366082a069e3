"""How far next-token distributions with one key-value cache are from those with another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.int8_kv_model import ALL_LOGITS_FILE, Floats, Reader, Tokens, open_session, slices


@dataclass(frozen=True)
class Agreement:
    """With the reference, one value for each position of a text.

    divergence: Kullback-Leibler, from the reference, in nats. surprise: of the token that follows, in nats.
    """

    divergence: Floats
    same_top: NDArray[np.bool_]
    surprise: Floats
    reference_surprise: Floats


def compare(
    reference: str, folders: Mapping[str, Path], texts: Sequence[Tokens]
) -> dict[str, list[Agreement]]:
    """One Agreement for each text. All read in step: the logits of a whole text are large."""
    sessions = {name: open_session(folder / ALL_LOGITS_FILE) for name, folder in folders.items()}
    results: dict[str, list[Agreement]] = {name: [] for name in folders if name != reference}
    for text in texts:
        readers = {name: Reader(session) for name, session in sessions.items()}
        parts: dict[str, list[Agreement]] = {name: [] for name in results}
        for piece, following in zip(slices(text[:-1]), slices(text[1:]), strict=True):
            found = {name: _log_softmax(reader.read(piece)) for name, reader in readers.items()}
            for name, pieces in parts.items():
                pieces.append(_agreement(found[reference], found[name], following))
        for name, pieces in parts.items():
            columns = zip(*(vars(piece).values() for piece in pieces), strict=True)
            results[name].append(Agreement(*(np.concatenate(column) for column in columns)))
    return results


def _agreement(expected: Floats, found: Floats, following: Tokens) -> Agreement:
    rows = np.arange(len(following))
    return Agreement(
        (np.exp(expected) * (expected - found)).sum(axis=1),
        expected.argmax(axis=1) == found.argmax(axis=1),
        -found[rows, following],
        -expected[rows, following],
    )


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
