"""What a model may write for the arguments of a tool, and what it reads when they do not fit."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

WORDING: Mapping[str, str] = MappingProxyType(
    {
        "missing": "is missing",
        "extra_forbidden": "is no argument of this tool",
        "string_type": "must be a text",
        "string_too_short": "must not be empty",
        "string_too_long": "must have at most {max_length} characters",
        "list_type": "must be a list",
        "too_short": "must not be empty",
        "too_long": "must have at most {max_length} entries",
        "literal_error": "must be {expected}",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "greater_than_equal": "must be {ge:g} or more",
        "less_than_equal": "must be {le:g} or less",
    }
)
"""By pydantic's name of the fault; for any other its own sentence."""


def without_nulls(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Null is how many models leave an argument out."""
    return {name: value for name, value in arguments.items() if value is not None}


def complaint(error: ValidationError, known: Iterable[str]) -> str:
    """What is wrong with the arguments of a tool that knows these, and the next step."""
    faults = "; ".join(
        f"{'.'.join(map(str, fault['loc']))} {_wording(fault['type'], fault.get('ctx', {}), fault['msg'])}"
        for fault in error.errors()
    )
    return f"{faults}. Correct this and call again; the arguments are: {', '.join(known)}."


def _wording(kind: str, limits: Mapping[str, Any], otherwise: str) -> str:
    return WORDING[kind].format_map(limits) if kind in WORDING else f"is wrong: {otherwise}"
