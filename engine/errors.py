"""What can go wrong in the engine, as one small tree.

`str(error)` is always one or two sentences for the person at the keyboard: what is wrong and what to do.
Each front door has one table that turns these classes into its own error format.
"""

from typing import Any


class EngineError(Exception):
    """Base of everything the engine raises on purpose. Pickles, to travel from a worker to the gateway."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own would call the class without its keyword-only arguments.
        return _without_init, (type(self), self.args, self.__dict__)


def _without_init(kind: type[EngineError], args: tuple[Any, ...], fields: dict[str, Any]) -> EngineError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class BadInput(EngineError):
    """The request itself is wrong; sending it again unchanged will fail again.

    field: what is wrong, by its name in the engine's own values (EmbedRequest, ChatRequest, Settings);
    each front door knows what its callers call it. index: which one, where the field holds several.
    """

    def __init__(self, message: str, *, field: str | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.index = index


class ContextTooLong(BadInput):
    """The input has more tokens than the model can read.

    at_least: it was not read to its end; it may have more than actual_tokens.
    """

    def __init__(
        self,
        *,
        limit_tokens: int,
        actual_tokens: int,
        field: str,
        index: int | None = None,
        at_least: bool = False,
    ) -> None:
        what = "The prompt" if index is None else f"Input {index}"
        has = f"at least {actual_tokens}" if at_least else str(actual_tokens)
        super().__init__(
            f"{what} has {has} tokens, but this model reads at most {limit_tokens}. Split it or shorten it.",
            field=field,
            index=index,
        )
        self.limit_tokens = limit_tokens
        self.actual_tokens = actual_tokens
        self.at_least = at_least


class ModelNotFound(EngineError):
    """No such model is installed; the message names the command that fetches it, if there is one."""


class Unavailable(EngineError):
    """The engine cannot serve this now but may soon; the same request may be sent again."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Overloaded(Unavailable):
    """The queue is full."""


class ModelNotReady(Unavailable):
    """The model is still being fetched or loaded."""


class WorkerCrashed(EngineError):
    """The process that runs a model ended while it worked on this request."""


class ModelSupplyError(EngineError):
    """A model could not be fetched, verified, converted or removed."""


class GatewayUnreachable(EngineError):
    """No gateway answers and none could be started."""


class GatewayRunning(EngineError):
    """Another process already is the gateway. url: where it listens; None while it is still starting."""

    def __init__(self, message: str, *, url: str | None) -> None:
        super().__init__(message)
        self.url = url


class PortTaken(EngineError):
    """The address the gateway should listen on cannot be used."""
