"""From messages to the token ids that the model reads, so that no text can pose as a control token.

A tokenizer turns the text "<|im_end|>" into the control token that ends a message, wherever the text comes
from: a user, a web page or a tool could then speak as the system. Here only what the chat template itself
wrote becomes control tokens:

1. in every message, texts that look like control tokens are replaced by stand-ins;
2. the template renders the messages: all control tokens in the result are now the template's own;
3. these are replaced by private marks, and the stand-ins by the texts they stand for;
4. the whole prompt is encoded at once, with control tokens switched off and the marks switched on, and each
   mark's id is replaced by the id of its control token.

Encoding everything at once keeps the tokenisation what it always was: for messages without such texts, the
ids equal those of encoding the rendered prompt the plain way.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tokenizers import AddedToken, Tokenizer

from engine.chat.template import ChatTemplate
from engine.errors import BadInput, ContextTooLong
from engine.models.token_counts import EXACT_TIMES, PIECE_CHARACTERS, far_beyond
from engine.types import Message

_LOOKS_LIKE_CONTROL = re.compile(r"<\|.*\|>|</?s>")
"""Some tokenizer.json files do not call all their control tokens special (Phi-3: "</s>")."""


class PromptEncoder:
    def __init__(self, tokenizer_json: str, template: ChatTemplate) -> None:
        self._template = template
        description: dict[str, Any] = json.loads(tokenizer_json)
        controls = [token for token in description["added_tokens"] if is_control(token)]
        for token in controls:
            token["special"] = True
        # Nobody can guess the marks, so no message can contain one.
        nonce = secrets.token_hex(8)
        self._mark_of = {t["content"]: f"\U000f0000{nonce}{n}\U000f0001" for n, t in enumerate(controls)}
        self._stand_in_of = {
            text: f"\U000f0002{nonce}{n}\U000f0003" for n, text in enumerate([*self._mark_of, "\0"])
        }
        self._control_text = _any_of(self._mark_of)
        self._shielded_text = _any_of(self._stand_in_of)
        self._tokenizer = Tokenizer.from_str(json.dumps(description))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.add_tokens([_mark(self._mark_of[t["content"]], t) for t in controls])
        self._control_of = {
            self._tokenizer.token_to_id(self._mark_of[t["content"]]): t["id"] for t in controls
        }

    def encode(self, messages: Sequence[Message], context_tokens: int) -> list[int]:
        """The prompt up to where the answer begins, shorter than the context.

        Raises BadInput, ContextTooLong.
        """
        self._refuse_far_too_long(messages, context_tokens)
        prompt = self._template.render([replace(m, content=self._shield(m.content)) for m in messages])
        prompt = self._control_text.sub(lambda found: self._mark_of[found[0]], prompt)
        for text, stand_in in self._stand_in_of.items():
            prompt = prompt.replace(stand_in, text)
        ids = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        if len(ids) >= context_tokens:
            raise ContextTooLong(limit_tokens=context_tokens, actual_tokens=len(ids), field="messages")
        return [self._control_of.get(token, token) for token in ids]

    def _refuse_far_too_long(self, messages: Sequence[Message], context_tokens: int) -> None:
        """Before the template and the tokenizer spend seconds on it. Every message takes a token at least."""
        most, tokens = EXACT_TIMES * context_tokens, len(messages)
        for message in messages:
            if tokens > most:
                break
            text = message.content.strip()
            if len(text) > PIECE_CHARACTERS:
                tokens += far_beyond(self._tokenizer, text, context_tokens)[1]
        if tokens > most:
            raise ContextTooLong(
                limit_tokens=context_tokens, actual_tokens=tokens, field="messages", at_least=True
            )

    def _shield(self, content: str) -> str:
        """NUL is shielded too: the template engine would cut the text there."""
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise BadInput(
                f"A message contains half of a UTF-16 surrogate pair (at character {error.start}), "
                "which is not text; send the whole character.",
                field="messages",
            ) from None
        return self._shielded_text.sub(lambda found: self._stand_in_of[found[0]], content)


def is_control(added_token: dict[str, Any]) -> bool:
    """added_token: an entry of a tokenizer.json."""
    return bool(added_token["special"] or _LOOKS_LIKE_CONTROL.fullmatch(added_token["content"]))


def _any_of(texts: dict[str, str]) -> re.Pattern[str]:
    """Matches the longest of these texts, as the tokenizer does."""
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or r"(?!)")


def _mark(text: str, control: dict[str, Any]) -> AddedToken:
    """A token that is matched like the control token, whitespace around it included."""
    return AddedToken(
        text,
        single_word=control["single_word"],
        lstrip=control["lstrip"],
        rstrip=control["rstrip"],
        normalized=False,
        special=False,
    )
