"""From a request to a conversation that the scheduler can begin.

In a thread of its own: a long prompt, or the schemas of many tools, take a while, and nobody else's next
token should wait for that.
"""

import logging
import queue
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from engine.chat.chat_messages import Cancel, Ended, Generate
from engine.chat.conversation import Conversation
from engine.chat.grammar import GrammarCompiler
from engine.chat.prompt import PromptEncoder
from engine.chat.tools import explained, may_call
from engine.chat.vocabulary import Vocabulary
from engine.errors import EngineError
from engine.types import ChatRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """loosened: as in ChatStarted."""

    conversation: Conversation
    loosened: tuple[str, ...]


class Intake:
    """answer_tokens: the most tokens of an answer whose request names no number."""

    def __init__(
        self,
        encoder: PromptEncoder,
        vocabulary: Vocabulary,
        end_tokens: Collection[int],
        grammars: GrammarCompiler,
        *,
        context_tokens: int,
        answer_tokens: int,
        speculates: bool,
    ) -> None:
        self._encoder = encoder
        self._vocabulary = vocabulary
        self._end_tokens = end_tokens
        self._grammars = grammars
        self._context_tokens = context_tokens
        self._answer_tokens = answer_tokens
        self._speculates = speculates
        self._waiting: queue.SimpleQueue[Generate | Cancel] = queue.SimpleQueue()

    def start(self, deliver: Callable[[Prepared | Ended | Cancel], None]) -> None:
        """deliver: called in the order of `put`, from the thread that begins here."""
        threading.Thread(target=self._work, args=(deliver,), name="intake", daemon=True).start()

    def put(self, message: Generate | Cancel) -> None:
        """Cancel too: it must not overtake the request that it is about."""
        self._waiting.put(message)

    def _work(self, deliver: Callable[[Prepared | Ended | Cancel], None]) -> None:
        while True:
            message = self._waiting.get()
            deliver(message if isinstance(message, Cancel) else self._outcome(message))

    def _outcome(self, message: Generate) -> Prepared | Ended:
        try:
            return self._prepared(message.request_id, message.request)
        except EngineError as error:
            return Ended(message.request_id, error)
        except Exception as error:  # a bug ends one request, not this thread
            logger.exception("request %d cannot be prepared", message.request_id)
            return Ended(message.request_id, EngineError(f"The request cannot be prepared: {error!r}"))

    def _prepared(self, request_id: int, request: ChatRequest) -> Prepared:
        """Raises BadInput, ContextTooLong."""
        grammar = self._grammars.compile(request)
        messages = explained(request.messages, request.tool_use)
        conversation = Conversation(
            request_id,
            self._encoder.encode(messages, self._context_tokens),
            request.sampling,
            context_tokens=self._context_tokens,
            answer_tokens=self._answer_tokens,
            vocabulary=self._vocabulary,
            end_tokens=self._end_tokens,
            grammar=grammar,
            reads_calls=request.tool_use is not None and may_call(request.tool_use),
            speculates=self._speculates,
        )
        return Prepared(conversation, grammar.loosened if grammar else ())
