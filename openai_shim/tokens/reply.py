"""What /tokenize and /detokenize answer."""

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12


class Tokens(TypedDict):
    tokens: list[int]
    count: int


class Text(TypedDict):
    content: str


def tokens_reply(tokens: list[int]) -> Tokens:
    return {"tokens": tokens, "count": len(tokens)}


def text_reply(text: str) -> Text:
    return {"content": text}
