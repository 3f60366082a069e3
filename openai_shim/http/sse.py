"""Server-sent events as OpenAI's clients read them."""

import orjson

DONE = b"data: [DONE]\n\n"

PING = b": ping\n\n"
"""A comment: clients skip it, proxies and their idle timers do not."""


def frame(value: object) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)


def named_frame(name: str, value: object) -> bytes:
    return b"event: %b\n%b" % (name.encode(), frame(value))
