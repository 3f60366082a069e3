"""What /v1/embeddings is asked."""

from typing import Annotated, Literal

from pydantic import Field

from engine.types import EmbedRequest, InputType
from openai_shim.http.parsing import RequestModel
from openai_shim.tokens.inputs import TextOrTokens, up_to

MAX_INPUTS = 2048


class EmbeddingRequest(RequestModel):
    """model left out: the default one. input_type is ours; a suffix of the model's name says the same."""

    input: Annotated[list[TextOrTokens], up_to(MAX_INPUTS)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    input_type: InputType | None = None

    def to_engine(self, on_overflow: Literal["error", "truncate"]) -> EmbedRequest:
        model, suffix = _split_input_type(self.model)
        return EmbedRequest(
            inputs=tuple(item if isinstance(item, str) else tuple(item) for item in self.input),
            model=model,
            input_type=self.input_type or suffix or "document",
            dimensions=self.dimensions,
            on_overflow=on_overflow,
        )


def _split_input_type(model: str | None) -> tuple[str | None, InputType | None]:
    """`bge-small-en-v1.5:query` embeds questions: OpenAI clients can name a model but set no field."""
    if model and model.endswith(":query"):
        return model.removesuffix(":query"), "query"
    if model and model.endswith(":document"):
        return model.removesuffix(":document"), "document"
    return model, None
