"""The answers to one request, each as one value."""

from collections.abc import Sequence

from engine.types import ChatRequest, Completion
from openai_shim.generation.accounting import account_of
from openai_shim.generation.choices import all_of
from openai_shim.http.context import Operation, Request, say_devices, say_loosened


async def complete(
    request: Request, asked: Sequence[ChatRequest], operation: Operation
) -> Sequence[Completion]:
    """Raises what the engine does."""
    completions = await all_of([request.app.ctx.engine.complete(each) for each in asked])
    account = request.ctx.account = account_of(operation, completions)
    say_devices(request, *account.devices)
    say_loosened(request, completions[0].loosened)
    return completions
