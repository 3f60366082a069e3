"""The tools of a response: functions, on their own or in namespaces, and what only OpenAI can run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import Tool
from openai_shim.chat.messages import Name
from openai_shim.chat.tools import FunctionDefinition
from openai_shim.http.parsing import RequestModel, type_of


class FunctionTool(FunctionDefinition):
    type: Literal["function"]


class OtherTool(RequestModel):
    """Agents send such tools (web_search, custom) unasked and do without: it is skipped."""

    type: Annotated[str, Field(json_schema_extra={"not": {"enum": ["function", "namespace"]}})]

    def ignored(self) -> Iterator[str]:
        yield self.type


def _kind(tool: object) -> str:
    kind = type_of(tool)
    return f"<{kind}>" if kind in ("function", "namespace") else "<other>"


class NamespaceTool(RequestModel):
    type: Literal["namespace"]
    name: Name
    tools: list[
        Annotated[
            Annotated[FunctionTool, Tag("<function>")] | Annotated[OtherTool, Tag("<other>")],
            Discriminator(
                _kind, custom_error_type="tool", custom_error_message="is a namespace within another one"
            ),
        ]
    ]


ResponseTool = Annotated[
    Annotated[FunctionTool, Tag("<function>")]
    | Annotated[NamespaceTool, Tag("<namespace>")]
    | Annotated[OtherTool, Tag("<other>")],
    Discriminator(_kind),
]


class NamedResponseTool(TypedDict):
    type: Literal["function"]
    name: str


def within(namespace: str | None, name: str) -> str:
    """What the model calls a function of a namespace."""
    return f"{namespace}.{name}" if namespace else name


def offered(tools: Sequence[ResponseTool]) -> list[Tool]:
    """All functions, those of namespaces under longer names."""
    return [
        replace(tool.to_engine(), name=within(namespace, tool.name)) for namespace, tool in _functions(tools)
    ]


def addresses(tools: Sequence[ResponseTool]) -> dict[str, tuple[str | None, str]]:
    """By what the model calls it: the namespace and the name of each function."""
    return {within(namespace, tool.name): (namespace, tool.name) for namespace, tool in _functions(tools)}


def _functions(tools: Sequence[ResponseTool]) -> Iterator[tuple[str | None, FunctionTool]]:
    for tool in tools:
        match tool:
            case FunctionTool():
                yield None, tool
            case NamespaceTool():
                yield from ((tool.name, inner) for inner in tool.tools if isinstance(inner, FunctionTool))
