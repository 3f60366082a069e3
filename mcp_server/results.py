"""What the tools return: flat values, each with the facts a model needs to judge them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EmbedResult(BaseModel):
    model_config = ConfigDict(frozen=True)

    model: str
    dimensions: int = Field(description="Numbers per vector.")
    count: int = Field(description="Texts embedded.")
    total_tokens: int = Field(description="Tokens read, all texts together.")
    devices: list[Literal["npu", "cpu"]] = Field(description="What ran the work.")
    npu_emulated: bool = Field(description="True if 'npu' was the software emulator.")
    vectors: list[list[float]] = Field(description="Unit vectors in the order of the texts, if asked for.")
    note: str = Field(description="What to do next, or empty.")


class CompleteResult(BaseModel):
    model_config = ConfigDict(frozen=True)

    text: str = Field(description="The generated text.")
    model: str
    device: Literal["npu", "cpu"] = Field(description="What ran the work.")
    finish_reason: Literal["stop", "length", "deadline"] = Field(
        description="stop: complete. length: cut at max_tokens. deadline: cut after 50 seconds."
    )
    prompt_tokens: int | None = Field(description="Null if unknown, after a deadline.")
    completion_tokens: int | None = Field(description="Null if unknown, after a deadline.")
    note: str = Field(description="What to do next, or empty.")
