"""The engine as seen from another process: the same requests and events, over the gateway's HTTP routes.

No numpy here: the MCP process imports this and must stay small.
"""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import quote

import httpx2

from engine.daemon import Endpoint
from engine.daemon.http import GONE, bearer, gateway_tls, loopback_http, patience, trust
from engine.errors import (
    BadInput,
    EngineError,
    GatewayUnreachable,
    ModelNotFound,
    Overloaded,
    Unavailable,
    WorkerCrashed,
)
from engine.types import (
    ChatEvent,
    ChatFinished,
    ChatPiece,
    ChatRequest,
    ChatStarted,
    Device,
    EmbedRequest,
    FinishReason,
    Health,
    JsonFormat,
    MemoryStatus,
    ModelState,
    ModelStatus,
    NpuStatus,
    QueueStatus,
    Sampling,
    Usage,
)

Locate = Callable[[], Awaitable[Endpoint]]
Json = dict[str, Any]
"""Decoded JSON from the gateway; this module is where it turns into values."""
T = TypeVar("T")

HEALTH_SECONDS = 5.0
EMBED_SECONDS = 30.0
UNLOAD_SECONDS = 30.0


@dataclass(frozen=True)
class RemoteEmbeddings:
    """vectors: one per input, in its order, each of length 1. total_tokens: read for all inputs together."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    total_tokens: int
    devices: tuple[Device, ...]
    npu_emulated: bool


class GatewayClient:
    """One connection pool to whatever gateway `locate` finds (or starts).

    A gateway that went away is looked for again and the request sent once more, as long as no byte of a reply
    had arrived. Every method raises the EngineError that the gateway's engine raised.
    """

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._locating = asyncio.Lock()
        self._endpoint: Endpoint | None = None
        self._tls = gateway_tls()
        self._http = loopback_http(EMBED_SECONDS, self._tls)

    @classmethod
    def of(cls, endpoint: Endpoint) -> Self:
        """A client of this gateway alone: when it went away, no other is looked for."""

        async def known() -> Endpoint:
            return endpoint

        return cls(known)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def endpoint(self) -> Endpoint:
        """Where the gateway was last seen; looks for it first if need be, raising GatewayUnreachable."""
        async with self._locating:
            if self._endpoint is None:
                self._endpoint = await self._locate()
            return self._endpoint

    async def health(self) -> Health:
        reply = await self._json("GET", "/health", read_seconds=HEALTH_SECONDS)
        return _health(reply.json())

    async def load(self, model_id: str) -> ModelState:
        """Returns when the model is in memory, however long that takes."""
        reply = await self._json("POST", f"/v1/models/{quote(model_id, safe='')}/load", read_seconds=None)
        return cast(ModelState, reply.json()["state"])

    async def unload(self, model_id: str) -> ModelState:
        """The state is still "ready" when requests run; the last of them unloads the model."""
        path = f"/v1/models/{quote(model_id, safe='')}/unload"
        reply = await self._json("POST", path, read_seconds=UNLOAD_SECONDS)
        return cast(ModelState, reply.json()["state"])

    async def embed(self, request: EmbedRequest) -> RemoteEmbeddings:
        reply = await self._json(
            "POST", "/v1/embeddings", body=_embedding_body(request), read_seconds=EMBED_SECONDS
        )
        return _embeddings(reply.json(), reply.headers)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """ChatStarted, ChatPieces, ChatFinished. Closing the generator ends the generation in the gateway."""
        finish: FinishReason | None = None
        usage: Usage | None = None
        started = False
        with _transport_errors():
            async with self._reply("POST", "/v1/chat/completions", _chat_body(request), None) as reply:
                async for chunk in _chunks(reply):
                    if not started:
                        started = True
                        yield ChatStarted(chunk["model"], _devices(reply.headers)[0])
                    for choice in chunk["choices"]:
                        if text := choice["delta"].get("content"):
                            yield ChatPiece(text)
                        finish = choice.get("finish_reason") or finish
                    if chunk.get("usage"):
                        usage = _usage(chunk["usage"])
        if finish is None or usage is None:
            raise WorkerCrashed("The answer broke off before its end. Send the request again.")
        yield ChatFinished(finish, usage)

    async def _json(
        self, method: str, path: str, *, read_seconds: float | None, body: Json | None = None
    ) -> httpx2.Response:
        with _transport_errors():
            async with self._reply(method, path, body, read_seconds) as reply:
                await reply.aread()
                return reply

    @asynccontextmanager
    async def _reply(
        self, method: str, path: str, body: Json | None, read_seconds: float | None
    ) -> AsyncIterator[httpx2.Response]:
        """A reply with status 200 whose body is still to be read; leaving the block closes its connection."""
        reply = await self._sent(method, path, body, read_seconds)
        try:
            if reply.is_error:
                await reply.aread()
                raise _refusal(reply)
            yield reply
        finally:
            await reply.aclose()

    async def _sent(
        self, method: str, path: str, body: Json | None, read_seconds: float | None
    ) -> httpx2.Response:
        async def send(endpoint: Endpoint) -> httpx2.Response:
            trust(self._tls, endpoint)
            request = self._http.build_request(
                method,
                endpoint.url + path,
                json=body,
                headers=bearer(endpoint),
                timeout=patience(read_seconds),
            )
            return await self._http.send(request, stream=True)

        seen = await self.endpoint()
        try:
            reply = await send(seen)
            if reply.status_code != HTTPStatus.UNAUTHORIZED:
                return reply
            await reply.aclose()  # a successor with its own token listens on the same port
        except GONE:
            pass
        if self._endpoint is seen:
            self._endpoint = None
        return await send(await self.endpoint())


def _embedding_body(request: EmbedRequest) -> Json:
    return _without_none(
        {
            "model": request.model,
            "input": request.inputs,
            "input_type": request.input_type,
            "dimensions": request.dimensions,
            "encoding_format": "base64",
        }
    )


def _embeddings(raw: Json, headers: httpx2.Headers) -> RemoteEmbeddings:
    return RemoteEmbeddings(
        model=raw["model"],
        vectors=tuple(_vector(item["embedding"]) for item in raw["data"]),
        total_tokens=raw["usage"]["total_tokens"],
        devices=_devices(headers),
        npu_emulated="x-npu-emulated" in headers,
    )


def _vector(encoded: str) -> tuple[float, ...]:
    raw = base64.b64decode(encoded)
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def _chat_body(request: ChatRequest) -> Json:
    """What this product's own clients ask for; other programs speak to the routes themselves."""
    sampling = request.sampling
    assert sampling == Sampling(
        sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed, sampling.stop
    )
    assert request.tool_use is None
    return _without_none(
        {
            "model": request.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_completion_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stop": sampling.stop or None,
            "response_format": _response_format(request.json_format),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


def _response_format(json_format: JsonFormat | None) -> Json | None:
    """Raises BadInput for a schema that is not JSON: here it is text, on the wire an object."""
    if json_format is None:
        return None
    if json_format.schema is None:
        return {"type": "json_object"}
    try:
        schema = json.loads(json_format.schema)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"The JSON Schema is not JSON: {error}.", field="json_format") from error
    if not isinstance(schema, dict):
        raise BadInput("The JSON Schema must be a JSON object.", field="json_format")
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


async def _chunks(reply: httpx2.Response) -> AsyncIterator[Json]:
    """The JSON of each server-sent event. Raises the error that the gateway put into the stream, if any."""
    async for event in httpx2.EventSource(reply):
        if event.data == "[DONE]":
            return
        chunk = json.loads(event.data)
        if error := chunk.get("error"):
            raise _engine_error(HTTPStatus.INTERNAL_SERVER_ERROR, error, reply.headers)
        yield chunk


def _usage(raw: Json) -> Usage:
    cached = (raw.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Usage(raw["prompt_tokens"], raw["completion_tokens"], cached)


def _devices(headers: httpx2.Headers) -> tuple[Device, ...]:
    return cast(tuple[Device, ...], tuple(name.strip() for name in headers["x-device"].split(",")))


def _health(raw: Json) -> Health:
    return Health(
        status=raw["status"],
        version=raw["version"],
        uptime_seconds=raw["uptime_seconds"],
        npu=_known(NpuStatus, raw["npu"]),
        models=tuple(_known(ModelStatus, model) for model in raw["models"]),
        memory=_known(MemoryStatus, raw["memory"]),
        queue=_known(QueueStatus, raw["queue"]),
    )


def _known(kind: type[T], raw: Json) -> T:
    """The dataclass from the fields we know; a newer gateway may say more, an older one less."""
    return kind(**{field.name: raw[field.name] for field in fields(cast(Any, kind)) if field.name in raw})


def _without_none(body: Json) -> Json:
    return {key: value for key, value in body.items() if value is not None}


def _refusal(reply: httpx2.Response) -> EngineError:
    try:
        error = reply.json()["error"]
        return _engine_error(reply.status_code, error, reply.headers)
    except (json.JSONDecodeError, KeyError, TypeError):
        return EngineError(
            f"The gateway answered {reply.status_code} without a reason: see `npu-gateway logs`."
        )


def _engine_error(status: int, error: Json, headers: Mapping[str, str]) -> EngineError:
    """The engine's error from OpenAI's error object; the inverse of the table in the HTTP front door."""
    message = str(error["message"])
    retry_after = float(headers.get("retry-after", 5))
    if error.get("code") == "model_not_found":
        return ModelNotFound(message)
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Overloaded(message, retry_after_seconds=retry_after)
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return Unavailable(message, retry_after_seconds=retry_after)
        case HTTPStatus.UNAUTHORIZED:
            return GatewayUnreachable(f"The gateway refused this client's token: {message}")
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return BadInput(message, field=error.get("param"))
        case _:
            return WorkerCrashed(message) if error.get("code") == "worker_crashed" else EngineError(message)


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except GONE as error:
        raise GatewayUnreachable(
            "The gateway ended in the middle of this request. Send it again: a new one starts by itself."
        ) from error
    except httpx2.TimeoutException as error:
        raise Unavailable(
            "The gateway took the request but did not answer in time; it is busy or still loading a model.",
            retry_after_seconds=5,
        ) from error
