"""The worker's side of its life: how it begins, answers for itself and ends."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from engine.errors import EngineError
from engine.workers.channel import Channel, inherited_channel
from engine.workers.handshake import LoadFailed, OtherVersion, assigned

logger = logging.getLogger(__name__)

O = TypeVar("O")  # noqa: E741 - options


@contextmanager
def begun(kind: type[O]) -> Iterator[tuple[Channel, O]]:
    """The channel to the gateway, and the options it gave.

    Whatever the block raises is told to the gateway as the reason why the model cannot be loaded; when the
    gateway is gone, the process ends.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    channel = inherited_channel()
    try:
        options = assigned(channel, os.getpid())
        assert isinstance(options, kind), options
        yield channel, options
    except EOFError:
        os._exit(0)
    except (EngineError, OtherVersion) as error:
        _fail(channel, str(error))
    except Exception as error:  # the gateway must learn of it, whatever it is
        logger.exception("the worker cannot begin")
        _fail(channel, f"{type(error).__name__}: {error}")


def _fail(channel: Channel, reason: str) -> None:
    try:
        channel.send(LoadFailed(reason))
    except OSError:
        os._exit(0)


def received_by(channel: Channel, take: Callable[[object], None]) -> None:
    """In a thread: hand over each message. When the gateway is gone this process ends, whatever it does."""

    def receive() -> None:
        try:
            while True:
                take(channel.receive())
        except EOFError:
            os._exit(0)  # in the middle of work whose result nobody will read

    threading.Thread(target=receive, name="receive", daemon=True).start()
