"""What handlers find on the app and on a request, with types."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Literal

import sanic
import sanic.response
from sanic.config import Config
from sanic.exceptions import RequestTimeout
from sanic.http import Http

from engine.daemon import Endpoint
from engine.engine import Engine
from engine.settings import Settings
from engine.types import Device
from openai_shim.http.body import check_encoding, decoded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewayContext:
    """accepted_keys: bearer tokens of the OpenAI routes; none means that they are open.

    endpoint: how the gateway has published itself, for the routes under /internal; None when it has not.
    closing: set it, and the gateway takes no new work and ends.
    """

    engine: Engine
    settings: Settings
    accepted_keys: tuple[str, ...] = ()
    endpoint: Endpoint | None = None
    closing: asyncio.Event = field(default_factory=asyncio.Event)


Operation = Literal["embeddings", "chat", "text_completion"]
"""As OpenTelemetry's gen_ai conventions call it."""


@dataclass(frozen=True)
class RequestAccount:
    """What the engine did for a request.

    first_token_at: by time.perf_counter; None if nobody was shown it when it came.
    seconds_per_token: after the first one, for each streamed conversation.
    queue_seconds: until its prompt began to be read, for each conversation.
    """

    operation: Operation
    model: str
    devices: tuple[Device, ...]
    input_tokens: int
    output_tokens: int = 0
    first_token_at: float | None = None
    seconds_per_token: tuple[float, ...] = ()
    queue_seconds: tuple[float, ...] = ()


class RequestContext(SimpleNamespace):
    """headers: what the reply carries beside its own, whatever the handler returns or raises.

    wire_names: what this kind of request calls the fields of the engine's values.
    account: None while nothing has been computed. cut_off_after: how many pieces of text a stream had sent
    when its caller left or the gateway ended; None if neither happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started_at = time.perf_counter()
        self.request_id = f"req_{secrets.token_hex(16)}"
        self.headers: dict[str, str] = {}
        self.wire_names: Mapping[str, str] = {}
        self.account: RequestAccount | None = None
        self.cut_off_after: int | None = None


App = sanic.Sanic[Config, GatewayContext]


BODY_SECONDS = 60.0
"""For the whole body to arrive; what is slower than 140 kB/s cannot send the largest one."""

_SLASHES = re.compile("/{2,}")


class Request(sanic.Request[App, RequestContext]):
    @staticmethod
    def make_context() -> RequestContext:
        return RequestContext()

    @property
    def path(self) -> str:
        """As it is routed and guarded: a base URL that ends in a slash makes two of one."""
        return _SLASHES.sub("/", super().path)

    async def receive_body(self) -> None:
        """Raises RequestTimeout, PayloadTooLarge, RequestRefused, BadParameter."""
        encoding = self.headers.get("content-encoding", "").strip().lower()
        check_encoding(encoding)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await super().receive_body()  # type: ignore[no-untyped-call]
        except TimeoutError:
            assert isinstance(self.stream, Http)
            self.stream.request_body, self.stream.keep_alive = None, False  # nobody waits for the rest
            raise RequestTimeout from None
        self.body = decoded(self.body, encoding, self.app.config.REQUEST_MAX_SIZE)


_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def adopt_request_id(request: Request) -> None:
    """A proxy or client that already numbers its requests finds its own numbers in the gateway's log."""
    context = request.ctx  # made by this first use: here the clock of the request starts
    sent = request.headers.get("x-request-id", "")
    if _SANE_ID.fullmatch(sent):
        context.request_id = sent


def finish_headers(request: Request, response: sanic.response.BaseHTTPResponse) -> None:
    context = request.ctx
    response.headers["x-request-id"] = context.request_id
    response.headers["openai-processing-ms"] = str(round(elapsed_ms(context)))
    response.headers.update(context.headers)


def elapsed_ms(context: RequestContext) -> float:
    return (time.perf_counter() - context.started_at) * 1000


def say_devices(request: Request, *devices: Device, emulated: bool = False) -> None:
    """In the reply's headers: what ran."""
    request.ctx.headers["x-device"] = ",".join(devices)
    if emulated:
        request.ctx.headers["x-npu-emulated"] = "1"


_HEADER_SAFE = re.compile(r"[ -~]{1,120}")
MAX_LOOSENED = 16
"""Places named in a header; the names in them are the caller's own words."""


def say_loosened(request: Request, loosened: Sequence[str]) -> None:
    """In the reply's headers and, whole, in the log: what schemas ask for and no grammar can hold."""
    if not loosened:
        return
    logger.debug("%s: schemas loosened: %s", request.ctx.request_id, "; ".join(map(ascii, loosened)))
    named = [place for place in loosened if _HEADER_SAFE.fullmatch(place)][:MAX_LOOSENED]
    request.ctx.headers["x-loosened-schemas"] = "; ".join(named) or str(len(loosened))
