"""What the routes of models answer."""

from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from engine.types import ModelKind, ModelState, ModelStatus


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: ModelKind
    state: ModelState
    device: str | None
    context_length: int
    dimensions: int | None


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


def model_card(model: ModelStatus) -> Model:
    """OpenAI's four fields and ours. created: when it was installed, 0 until then (clients want a number)."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.installed_at or 0,
        "owned_by": "npu-gateway",
        "kind": model.kind,
        "state": model.state,
        "device": model.device,
        "context_length": model.context_tokens,
        "dimensions": model.dimensions,
    }


def model_list(models: Sequence[ModelStatus]) -> ModelList:
    return {"object": "list", "data": [model_card(model) for model in models]}
