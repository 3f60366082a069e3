"""How tools are told to a model, and how its calls are told from its text.

One way for all models, because none of those supported was trained for tools in a way of its own: a system
message lists the tools, and a call is one line,

    <tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>

the form that Hermes and Qwen models write. A grammar makes sure that the line parses and the arguments match.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace

from engine.chat.stopping import StopFinder
from engine.types import Message, ToolCall, ToolUse

CALL_BEGINS = "<tool_call>"
CALL_ENDS = "</tool_call>"

_INSTRUCTIONS = """\
You can call tools. To call one, answer with a line of this form and nothing else:
<tool_call>{"name": "the tool's name", "arguments": {"its": "arguments"}}</tool_call>
The result comes in the next message. These are the tools:
"""


def may_call(use: ToolUse) -> bool:
    return bool(use.tools) and (use.choice != "none" or use.only is not None)


def must_call(use: ToolUse) -> bool:
    return use.choice == "required" or use.only is not None


def explained(messages: Sequence[Message], use: ToolUse | None) -> list[Message]:
    """The conversation, with the tools described in a system message and earlier calls written out."""
    written = [_written(message) for message in messages]
    if use is None or not may_call(use):
        return written
    system, others = ([written[0]], written[1:]) if written[0].role == "system" else ([], written)
    return [Message("system", "\n\n".join([*(m.content for m in system), _described(use)])), *others]


def _described(use: ToolUse) -> str:
    descriptions = [
        {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}
        for tool in use.tools
    ]
    return _INSTRUCTIONS + "\n".join(json.dumps(d, ensure_ascii=False) for d in descriptions)


def _written(message: Message) -> Message:
    """An assistant's calls as the text that it wrote."""
    if not message.tool_calls:
        return message
    calls = [
        f'{CALL_BEGINS}{{"name": {json.dumps(call.name)}, "arguments": {_arguments(call)}}}{CALL_ENDS}'
        for call in message.tool_calls
    ]
    return replace(message, content="\n".join([*filter(None, [message.content]), *calls]), tool_calls=())


def _arguments(call: ToolCall) -> str:
    """As JSON, whatever was called: agents send back broken arguments, so that the model can mend them."""
    try:
        arguments = json.dumps(json.loads(call.arguments or "{}"), ensure_ascii=False)
        arguments.encode()  # an escape can stand for half of a character
    except (ValueError, RecursionError):
        return json.dumps(call.arguments, ensure_ascii=False)
    return arguments


_CUT_OFF = re.compile(r'\{"name": (?P<name>"(?:[^"\\]|\\.)*"), "arguments": (?P<arguments>.*)', re.DOTALL)


class CallReader:
    """Takes the text of an answer in pieces; gives back the text in front of the calls, and the calls."""

    def __init__(self) -> None:
        self._begin = StopFinder((CALL_BEGINS,))
        self._calls: str | None = None

    def feed(self, text: str) -> str:
        """What is certainly text, not the beginning of a call."""
        if self._calls is not None:
            self._calls += text
            return ""
        released = self._begin.feed(text)
        if released.stopped:
            self._calls = released.rest
        return released.text

    def flush(self) -> str:
        """The answer has ended: what was held back was text after all."""
        return self._begin.flush() if self._calls is None else ""

    def calls(self) -> tuple[list[ToolCall], str]:
        """The calls, the last as far as it came if the token limit cut it off; and what is no call yet."""
        calls = []
        rest = self._calls or ""
        decoder = json.JSONDecoder()
        while rest:
            try:
                call, end = decoder.raw_decode(rest)
            except json.JSONDecodeError:
                break
            calls.append(_call(call["name"], json.dumps(call["arguments"], ensure_ascii=False)))
            rest = rest[end:].removeprefix(CALL_ENDS).removeprefix(CALL_BEGINS)
        if cut_off := _CUT_OFF.fullmatch(rest):
            calls.append(_call(json.loads(cut_off["name"]), cut_off["arguments"]))
            rest = ""
        return calls, rest


def _call(name: str, arguments: str) -> ToolCall:
    return ToolCall(f"call_{secrets.token_hex(12)}", name, arguments)
