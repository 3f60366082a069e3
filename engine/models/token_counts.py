"""How long a text is in tokens, as far as it matters: whoever sends eight megabytes learns it at once.

Tokenising 8 MB at once took 20 s and 1.4 GB (tokenizers keeps text, offsets and words of every token).
"""

from collections.abc import Iterator

from tokenizers import Tokenizer

PIECE_CHARACTERS = 8_192
EXACT_TIMES = 4
"""A text up to so many times as long as what fits is counted exactly, for whoever wants to split it."""

CUT_TOKENS = 8
"""What cutting a word in two may add to the tokens of a text, generously."""


def far_beyond(tokenizer: Tokenizer, text: str, tokens: int) -> tuple[str, int]:
    """The whole text; or its beginning, if that has more than EXACT_TIMES so many tokens already.

    And a number of tokens that what was read has at least. Nothing is refused that fits: spaces, and words
    that the vocabulary does not know, take few tokens however long they are.
    """
    counted = characters = 0
    for piece in _pieces(text):
        characters += len(piece)
        counted += max(len(tokenizer.encode(piece, add_special_tokens=False).ids) - CUT_TOKENS, 0)
        if counted > EXACT_TIMES * tokens:
            break
    return text[:characters], counted


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]
