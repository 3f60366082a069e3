"""Conversations in the roles and the order that a template knows."""

import json
from collections.abc import Callable

import pytest

from engine.chat.template import ChatTemplate
from engine.errors import BadInput
from engine.types import Message

S1, S2 = Message("system", "rule one"), Message("system", "rule two")
U1, U2 = Message("user", "question one"), Message("user", "question two")
A1, T1 = Message("assistant", "answer one"), Message("tool", "12 degrees")


def any_role(messages_json: str) -> str:
    return "".join(f"[{m['role']}:{m['content']}]" for m in json.loads(messages_json))


def drops_system(messages_json: str) -> str:
    """As the first chat template of Phi-3-mini-4k-instruct does."""
    return "".join(
        f"[{m['role']}:{m['content']}]"
        for m in json.loads(messages_json)
        if m["role"] in ("user", "assistant")
    )


def first_system_only(messages_json: str) -> str:
    messages = json.loads(messages_json)
    if any(m["role"] not in ("user", "assistant") for m in messages[1:]):
        raise RuntimeError("System role must be first")
    return any_role(messages_json)


def strictly_alternating(messages_json: str) -> str:
    """As Gemma's does."""
    for n, message in enumerate(json.loads(messages_json)):
        if message["role"] != ("user", "assistant")[n % 2]:
            raise RuntimeError("Conversation roles must alternate user/assistant at row 1\n^^^")
    return any_role(messages_json)


@pytest.mark.parametrize(
    ("render", "expected"),
    [
        (any_role, [S1, U1, A1, T1, S2, U2]),
        (
            drops_system,
            [
                Message("user", "rule one\n\nrule two"),
                U1,
                A1,
                Message("user", "Tool result:\n12 degrees"),
                U2,
            ],
        ),
        (
            first_system_only,
            [
                Message("system", "rule one\n\nrule two"),
                U1,
                A1,
                Message("user", "Tool result:\n12 degrees"),
                U2,
            ],
        ),
        (
            strictly_alternating,
            [
                Message("user", "rule one\n\nrule two\n\nquestion one"),
                A1,
                Message("user", "Tool result:\n12 degrees\n\nquestion two"),
            ],
        ),
    ],
    ids=["knows all", "drops system", "first system only", "strictly alternating"],
)
def test_every_content_reaches_the_prompt_whatever_the_template_knows(
    render: Callable[[str], str], expected: list[Message]
) -> None:
    template = ChatTemplate(render)

    assert template.adapt([S1, U1, A1, T1, S2, U2]) == expected
    template.render([S1, U1, A1, T1, S2, U2])


def test_what_cannot_be_expressed_is_refused_with_the_template_s_own_words() -> None:
    template = ChatTemplate(strictly_alternating)

    with pytest.raises(BadInput, match=r"roles must alternate user/assistant at row 1$") as refused:
        template.render([A1, U1])

    assert refused.value.field == "messages"
