"""What all requests have in common.

A field is honoured, refused by name, or (if the gateway does not know it) ignored and named in the reply. A
known field that the engine cannot honour yet is accepted with a value that asks for nothing, because clients
send such values unasked (`n: 1`, `tools: []`), and refused with any other.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from openai_shim.http.errors import UnsupportedParameter


class WireModel(BaseModel):
    """An object in a request. Strict: OpenAI does not take "5" for 5 either."""

    model_config = ConfigDict(
        strict=True, extra="allow", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    idle_values: ClassVar[Mapping[str, tuple[object, ...]]] = MappingProxyType({})
    """Known fields that are not honoured, with the values (beside null) that ask for nothing."""

    @model_validator(mode="after")
    def _refuse_what_is_not_done(self) -> "WireModel":
        for name, value in (self.model_extra or {}).items():
            if name in self.idle_values and value is not None and value not in self.idle_values[name]:
                raise UnsupportedParameter(
                    f"This gateway does not support '{name}'. Leave it out.", param=name
                )
        return self

    def ignored(self) -> Iterator[str]:
        """Dotted names of the fields, here and in nested objects, that had no effect; null asked for none."""
        asked = (name for name, value in (self.model_extra or {}).items() if value is not None)
        yield from (name for name in asked if name not in self.idle_values)
        for name in type(self).model_fields:
            value = getattr(self, name)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, WireModel):
                    yield from (f"{name}.{inner}" for inner in item.ignored())
