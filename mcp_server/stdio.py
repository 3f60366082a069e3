"""Standard input and output as the streams of an MCP server; every line that asks gets an answer."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, cast

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)
from pydantic import RootModel

from mcp_server.jsonrpc import Json, LineRefused, checked, decoded

WITH_BATCHES = "2025-03-26"
"""The only version of MCP that has them."""

Incoming = ObjectReceiveStream[SessionMessage | Exception]
Outgoing = ObjectSendStream[SessionMessage]


@asynccontextmanager
async def stdio() -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """What the client asks, and where the answers go; the first ends with the input.

    The writing half is the SDK's. Its reading half drops lines, and gets none.
    """
    to_server, requests = anyio.create_memory_object_stream[SessionMessage | Exception]()
    answers, from_server = anyio.create_memory_object_stream[SessionMessage]()
    lines = _private_input()
    async with (
        stdio_server(stdin=anyio.wrap_file(StringIO())) as (no_requests, wire),
        no_requests,
        anyio.create_task_group() as tasks,
    ):
        conversation = _Conversation(cast(Outgoing, wire))

        async def read() -> None:
            async with to_server:
                async for line in lines:
                    for message in await conversation.take(line):
                        await to_server.send(SessionMessage(message))

        async def write() -> None:
            async with wire, from_server:
                async for message in from_server:
                    await conversation.reply(message)

        tasks.start_soon(read)
        tasks.start_soon(write)
        yield requests, answers


def _private_input() -> anyio.AsyncFile[bytes]:
    """The lines of standard input; libraries and children find it empty."""
    wire, empty = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return anyio.wrap_file(os.fdopen(wire, "rb", closefd=False))  # a thread may wait for it to the very end


@dataclass
class _Batch:
    """waiting: the requests without an answer yet."""

    waiting: list[str | int] = field(default_factory=list)
    replies: list[Json] = field(default_factory=list)


class _Conversation:
    """What the client is still owed."""

    def __init__(self, wire: Outgoing) -> None:
        self._wire = wire
        self._has_batches = False
        self._batches: list[_Batch] = []

    async def take(self, line: bytes) -> list[JSONRPCMessage]:
        """The messages of a line that are for the server; what is wrong with the others is answered."""
        if not line.strip():
            return []
        try:
            value = decoded(line)
            messages = self._batch(value) if isinstance(value, list) else self._single(value)
        except LineRefused as refused:
            for reply in refused.replies:
                await self._send(reply)
            return []
        await self._send_finished()
        return messages

    def _single(self, value: object) -> list[JSONRPCMessage]:
        message = checked(value)
        match message:
            case None:
                return []
            case JSONRPCRequest(method="initialize", params={"protocolVersion": version}):
                self._has_batches = version == WITH_BATCHES
            case JSONRPCNotification(method="notifications/cancelled", params={"requestId": request_id}):
                self._forget(request_id)
        return [message]

    def _batch(self, members: list[object]) -> list[JSONRPCMessage]:
        if not members:
            raise LineRefused(members, INVALID_REQUEST, "A batch must not be empty.")
        if not self._has_batches:
            raise LineRefused(
                members, INVALID_REQUEST, "This version has no batches: send one message a line."
            )
        batch = _Batch()
        self._batches.append(batch)
        messages: list[JSONRPCMessage] = []
        for member in members:
            try:
                taken = self._single(member)
            except LineRefused as refused:
                batch.replies += refused.replies
            else:
                batch.waiting += [message.id for message in taken if isinstance(message, JSONRPCRequest)]
                messages += taken
        return messages

    def _forget(self, cancelled: object) -> None:
        """The server does not answer what was cancelled; it takes the id 1 and the id "1" for one there."""
        for batch in self._batches:
            batch.waiting = [waiting for waiting in batch.waiting if str(waiting) != str(cancelled)]

    async def reply(self, message: SessionMessage) -> None:
        """Send what comes from the server: the answers to a batch together, all else at once."""
        answer = message.message
        if isinstance(answer, JSONRPCResponse | JSONRPCError):
            for batch in self._batches:
                if answer.id in batch.waiting:
                    batch.waiting.remove(answer.id)
                    batch.replies.append(answer.model_dump(mode="json", by_alias=True, exclude_unset=True))
                    await self._send_finished()
                    return
        await self._wire.send(message)

    async def _send_finished(self) -> None:
        finished = [batch for batch in self._batches if not batch.waiting]
        self._batches = [batch for batch in self._batches if batch.waiting]
        for batch in finished:
            if batch.replies:
                await self._send(batch.replies)

    async def _send(self, line: Json | list[Json]) -> None:
        """The SDK's writer asks what it writes for its JSON and nothing else."""
        await self._wire.send(SessionMessage(cast(JSONRPCMessage, RootModel[Any](line))))
