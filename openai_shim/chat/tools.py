"""What the assistant may call, and what it must."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import Tool, ToolUse
from openai_shim.chat.messages import Name
from openai_shim.http.errors import BadParameter
from openai_shim.http.parsing import RequestModel


class FunctionDefinition(RequestModel):
    """Arguments always match the schema; what a grammar cannot express of it is loosened, unless strict."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def to_engine(self) -> Tool:
        schema = self.parameters or {"type": "object", "properties": {}}
        written = json.dumps(schema, ensure_ascii=False)
        return Tool(self.name, self.description or "", written, strict=bool(self.strict))


class ToolDefinition(RequestModel):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(TypedDict):
    name: str


class NamedTool(TypedDict):
    type: Literal["function"]
    function: NamedFunction


def chosen_tool(value: object) -> object:
    """One of the words, or a dict whose `only` is the function's name, written in either API's way."""
    match value:
        case None | "none" | "auto" | "required":
            return value
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return {"only": name}
        case _:
            raise PydanticCustomError("tool_choice", "must be none, auto, required or the name of a function")


ToolChoice = Annotated[
    Any,
    PlainValidator(
        chosen_tool, json_schema_input_type=Literal["none", "auto", "required"] | NamedTool | None
    ),
]


def chosen_function(value: object) -> object:
    """As `chosen_tool`, from before there were tools."""
    match value:
        case None | "none" | "auto":
            return value
        case {"name": str(name)}:
            return {"only": name}
        case _:
            raise PydanticCustomError("function_call", "must be none, auto or an object with a name")


FunctionChoice = Annotated[
    Any,
    PlainValidator(chosen_function, json_schema_input_type=Literal["none", "auto"] | NamedFunction | None),
]


def tool_use(
    offered: Sequence[Tool], choice: Any, *, parallel: bool, choice_field: str = "tool_choice"
) -> ToolUse | None:
    """choice: as `chosen_tool` or `chosen_function` left it. None without tools. Raises BadParameter."""
    only = choice["only"] if isinstance(choice, dict) else None
    if only is not None and only not in {tool.name for tool in offered}:
        raise BadParameter(f"{choice_field} names {only!r}, which is none of the tools.", param=choice_field)
    if choice == "required" and not offered:
        raise BadParameter(f"{choice_field} is 'required', but there are no tools.", param=choice_field)
    if not offered:
        return None
    word = choice if isinstance(choice, str) else "auto"
    return ToolUse(tuple(offered), word, only, parallel)  # type: ignore[arg-type]
