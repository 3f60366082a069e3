"""The model's chat template, and what it cannot say: found out by trying, so that nothing gets lost."""

import json
from collections.abc import Callable, Sequence
from itertools import groupby

from engine.errors import BadInput, ModelSupplyError
from engine.types import Message

RenderJson = Callable[[str], str]
"""Applies the template to a JSON array of {"role", "content"}.

RuntimeError when the template refuses, ModelSupplyError when it was stopped.
"""


class ChatTemplate:
    """Renders any order of system, user, assistant and tool messages with templates that know only some.

    Phi-3 knows system, user and assistant; older Phi-3 templates drop system messages silently; Gemma refuses
    them, and two messages of the same role in a row.

    Raises ModelSupplyError when the template has to be stopped on the first messages it is tried with.
    """

    def __init__(self, render_json: RenderJson) -> None:
        self._render_json = render_json
        system, user, assistant = Message("system", "S"), Message("user", "U"), Message("assistant", "A")
        self._knows_system = self._shows([system, user])
        self._knows_late_system = self._shows([system, user, assistant, Message("system", "T"), user])
        self._knows_repetition = self._shows([user, Message("user", "V")])
        self._knows_tool = self._shows([user, assistant, Message("tool", "T")])

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, up to where the assistant's answer begins. Raises BadInput."""
        expressible = self.adapt(messages)
        try:
            return self._apply(expressible)
        except ModelSupplyError as error:
            raise BadInput(str(error), field="messages") from error
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise BadInput(
                f"The model's chat template does not accept these messages: {reason}", field="messages"
            ) from None

    def adapt(self, messages: Sequence[Message]) -> list[Message]:
        """The same conversation in the roles and the order that the template knows."""
        adapted = list(messages)
        if not self._knows_tool:
            adapted = [_as_user(m) if m.role == "tool" else m for m in adapted]
        if not self._knows_late_system:
            adapted = _system_first(adapted)
        if not self._knows_system:
            adapted = [Message("user", m.content) if m.role == "system" else m for m in adapted]
        if not self._knows_repetition:
            adapted = [_joined(list(run)) for _, run in groupby(adapted, key=lambda m: m.role)]
        return adapted

    def _apply(self, messages: Sequence[Message]) -> str:
        # An empty list makes some templates fail on messages[0]; the shims refuse it before it comes here.
        return self._render_json(
            json.dumps([{"role": m.role, "content": m.content} for m in messages], ensure_ascii=False)
        )

    def _shows(self, probe: Sequence[Message]) -> bool:
        """Whether every content of the probe is in the prompt, in order."""
        marked = [Message(m.role, f"\N{SNOWMAN}{m.content}\N{COMET}") for m in probe]
        try:
            prompt = self._apply(marked)
        except RuntimeError:
            return False
        at = 0
        for message in marked:
            at = prompt.find(message.content, at)
            if at < 0:
                return False
        return True


def _as_user(tool: Message) -> Message:
    return Message("user", f"Tool result:\n{tool.content}")


def _system_first(messages: list[Message]) -> list[Message]:
    """All system messages, joined, in front of the others."""
    system = [m for m in messages if m.role == "system"]
    others = [m for m in messages if m.role != "system"]
    return [_joined(system), *others] if system else others


def _joined(messages: list[Message]) -> Message:
    return Message(messages[0].role, "\n\n".join(m.content for m in messages))
