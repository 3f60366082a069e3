"""The gateway process: it claims its place on this machine, serves, and ends in good order."""

import asyncio
import contextlib
import signal
import ssl
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

from engine.daemon import Claim, claim, keeping_its_place
from engine.daemon.loop import alongside, run_server
from engine.engine import Engine
from engine.errors import BadInput, GatewayRunning
from engine.settings import Settings
from engine.types import ModelKind
from openai_shim.app import create_app
from openai_shim.http.context import GatewayContext
from openai_shim.http.log import log_to_file
from openai_shim.serve.banner import introduce
from openai_shim.serve.descriptors import connection_capacity
from openai_shim.serve.idle import leaving_when_idle
from openai_shim.serve.server import serving
from openai_shim.serve.tls import configured_tls


def run(settings: Settings, *, auto_started: bool, flags: tuple[str, ...] = ()) -> None:
    """Until a signal or nobody needs it. flags: of `serve`, for a restart.

    Raises EngineError for what keeps it from serving.
    """
    try:
        keys, tls = settings.keys(), configured_tls(settings)
        certificate = tls.certificate if tls else None
        with claim(
            settings.home,
            settings.host,
            settings.port,
            auto_started=auto_started,
            certificate=certificate,
            flags=flags,
        ) as claimed:
            log_to_file(settings, on_screen=not auto_started)
            run_server(_run(settings, keys, tls.context if tls else None, claimed))
    except GatewayRunning:
        if not auto_started:  # whoever started this one wants a gateway, and there is one
            raise


async def _run(settings: Settings, keys: tuple[str, ...], tls: ssl.SSLContext | None, claimed: Claim) -> None:
    async with Engine.start(settings) as engine:
        _check_default(engine, "embedding")
        _check_default(engine, "chat")
        is_open = not keys and not claimed.endpoint.auto_started
        accepted = () if is_open else (*keys, claimed.endpoint.token)
        context = GatewayContext(engine, settings, accepted, claimed.endpoint)
        with _ended_by_signals(context.closing):
            async with (
                keeping_its_place(claimed, context.closing),
                serving(create_app(context), claimed.sockets, tls, capacity=connection_capacity()),
                _while_wanted(claimed, context),
                alongside(introduce(engine, claimed.endpoint.url, is_open=is_open)),
            ):
                await context.closing.wait()
                claimed.unpublish()


def _while_wanted(claimed: Claim, context: GatewayContext) -> AbstractAsyncContextManager[None]:
    """A gateway that a person started stays until told otherwise."""
    if claimed.endpoint.auto_started:
        return leaving_when_idle(context.engine, context.closing)
    return contextlib.nullcontext()


def _check_default(engine: Engine, kind: ModelKind) -> None:
    """Raises ModelNotFound or BadInput for a default model that will never come up."""
    model_id = engine.default_model(kind)
    found = engine.model(model_id).kind
    if found != kind:
        raise BadInput(f"{model_id!r} is a model for {found}, not for {kind}.")


@contextlib.contextmanager
def _ended_by_signals(closing: asyncio.Event) -> Iterator[None]:
    """The first signal ends the gateway in good order, the second at once.

    `signal.signal` and not `loop.add_signal_handler`, which Windows does not have.
    """
    loop = asyncio.get_running_loop()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}

    def end(number: int, frame: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        loop.call_soon_threadsafe(closing.set)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
