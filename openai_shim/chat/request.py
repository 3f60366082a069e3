"""What /v1/chat/completions is asked."""

from types import MappingProxyType
from typing import Annotated

from pydantic import Field, model_validator

from engine.types import ChatRequest, Sampling, ToolUse
from openai_shim.chat.answer_format import AnswerFormat
from openai_shim.chat.messages import ChatMessage
from openai_shim.chat.tools import FunctionChoice, FunctionDefinition, ToolChoice, ToolDefinition, tool_use
from openai_shim.generation.request import GenerationRequest, TokenCount
from openai_shim.http.errors import BadParameter


class ChatCompletionRequest(GenerationRequest):
    """max_completion_tokens is the newer name of max_tokens; it wins when both are given."""

    idle_values = MappingProxyType(
        {
            "audio": (),
            "modalities": (["text"],),
            "web_search_options": (),
        }
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: AnswerFormat | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = None
    function_call: FunctionChoice = None

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "ChatCompletionRequest":
        if self.tools and self.functions:
            raise BadParameter("functions are the older form of tools. Send one of them.", param="functions")
        if self.top_logprobs and not self.logprobs:
            raise BadParameter("top_logprobs needs logprobs: true.", param="top_logprobs")
        return self

    def to_engine(self) -> list[ChatRequest]:
        """One request for each choice. Raises BadParameter."""
        messages = tuple(message.to_engine() for message in self.messages)
        tools = self._tool_use()
        answer_format = self.response_format.to_engine() if self.response_format else None
        return [
            ChatRequest(messages, self.model, self._chat_sampling(choice), answer_format, tools)
            for choice in range(self.choices)
        ]

    def _tool_use(self) -> ToolUse | None:
        tools = tool_use(
            [tool.function.to_engine() for tool in self.tools or ()],
            self.tool_choice,
            parallel=self.parallel_tool_calls is not False,
        )
        functions = tool_use(
            [function.to_engine() for function in self.functions or ()],
            self.function_call,
            parallel=False,
            choice_field="function_call",
        )
        return tools or functions

    def _chat_sampling(self, choice: int) -> Sampling:
        return self.sampling(
            self.max_completion_tokens or self.max_tokens,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            choice=choice,
        )
