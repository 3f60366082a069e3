"""The process that runs one model's chat template: `python -m engine.models.templates.template_worker`.

A template is a program. onnxruntime-genai runs it with the GIL held, for as long as it takes, and a recursion
that is too deep ends the process. Here nothing else is held up by that.
"""

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import of onnxruntime_genai

import onnxruntime_genai as og

from engine.models.templates.template_messages import Declined, Render, Rendered, TemplateOptions
from engine.workers.child import begun
from engine.workers.handshake import Ready


def main() -> None:
    with begun(TemplateOptions) as (channel, options), open(os.devnull, "w", encoding="utf-8") as nowhere:
        with _at_most(options.load_seconds, nowhere):
            tokenizer = og.Tokenizer(og.Config(str(options.folder)))
        channel.send(Ready())
        while True:
            request = channel.receive()
            assert isinstance(request, Render), request
            channel.send(_reply(tokenizer, request, nowhere))


def _reply(tokenizer: Any, request: Render, nowhere: TextIO) -> Rendered | Declined:
    try:
        with _at_most(request.seconds, nowhere):
            prompt = tokenizer.apply_chat_template(request.messages_json)
    except (RuntimeError, MemoryError) as error:
        return Declined(str(error))
    if len(prompt) > request.most_characters:
        return Declined(f"It writes {len(prompt)} characters for {len(request.messages_json)}.")
    return Rendered(prompt)


@contextmanager
def _at_most(seconds: float, nowhere: TextIO) -> Iterator[None]:
    """Ends the process otherwise. faulthandler's clock needs no GIL, and no parent that is still there."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
