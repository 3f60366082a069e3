"""`npu-gateway chat`: one question, or a conversation at the terminal."""

import time
from contextlib import aclosing
from dataclasses import replace

import click

from engine.errors import BadInput, EngineError
from engine.remote.client import GatewayClient
from engine.types import ChatFinished, ChatPiece, ChatRequest, ChatStarted, Message


async def ask_once(gateway: GatewayClient, begun: ChatRequest, text: str) -> None:
    """begun: the request without its question. Raises EngineError."""
    if not text.strip():
        raise BadInput("There is nothing to answer: give a prompt, or pipe one in.")
    async with gateway:
        await _answer(gateway, replace(begun, messages=(*begun.messages, Message("user", text))))


async def converse(gateway: GatewayClient, begun: ChatRequest) -> None:
    """Until the end of input. What cannot be answered is said, and the conversation goes on without it."""
    messages = begun.messages
    click.secho("Ctrl-D (on Windows Ctrl-Z and Enter) ends the conversation.", dim=True, err=True)
    async with gateway:
        while (line := _line()) is not None:
            asked = (*messages, Message("user", line))
            try:
                text = await _answer(gateway, replace(begun, messages=asked))
            except EngineError as error:
                click.secho(str(error), fg="red", err=True)
            else:
                messages = (*asked, Message("assistant", text))


def _line() -> str | None:
    """None at the end of input. Empty lines are asked for again."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            click.echo()
            return None
        if line:
            return line


async def _answer(gateway: GatewayClient, request: ChatRequest) -> str:
    """Shown while it comes. Raises EngineError."""
    first_piece_at, pieces = 0.0, list[str]()
    async with aclosing(gateway.chat(request)) as events:
        async for event in events:
            match event:
                case ChatStarted():
                    first_piece_at = time.perf_counter()
                case ChatPiece(text):
                    pieces.append(text)
                    click.echo(text, nl=False)
                case ChatFinished(_, usage):
                    click.echo()
                    _print_speed(usage.completion_tokens, time.perf_counter() - first_piece_at)
    return "".join(pieces)


def _print_speed(tokens: int, seconds_after_first: float) -> None:
    speed = f", {(tokens - 1) / seconds_after_first:.1f} tokens/s" if tokens > 1 else ""
    click.secho(f"{tokens} tokens{speed}", dim=True, err=True)
