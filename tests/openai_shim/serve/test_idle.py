"""When a gateway that a client started may leave."""

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from engine.engine import Engine
from engine.types import Health, MemoryStatus, ModelStatus, NpuStatus, QueueStatus
from openai_shim.serve.idle import idle, leaving_when_idle

RESTING = ModelStatus("m", "chat", "ready", "cpu", None, None, 100, None, 0, 5, 0)
NO_NPU = NpuStatus(available=False, emulated=False, name=None, reason="none")


class Diary:
    """An engine with so many chats at each check; the last number stays."""

    def __init__(self, *chats: int) -> None:
        self._chats = list(chats or (0,))
        self.checks = 0

    def models(self) -> tuple[ModelStatus, ...]:
        return (RESTING,)

    def health(self) -> Health:
        """The end of each check."""
        self.checks += 1
        chats = self._chats.pop(0) if len(self._chats) > 1 else self._chats[0]
        queue = QueueStatus(embedding=0, chat=chats)
        return Health("ok", "0", 0, NO_NPU, self.models(), MemoryStatus(0), queue)


async def checks_until_idle(diary: Diary) -> int:
    await asyncio.wait_for(idle(cast(Engine, diary), checks=3, check_seconds=0), 5)
    return diary.checks


async def test_an_unused_gateway_is_idle_after_so_many_checks() -> None:
    assert await checks_until_idle(Diary()) == 3


async def test_a_running_chat_is_not_idle_however_long_it_takes() -> None:
    assert await checks_until_idle(Diary(0, 0, 1, 1, 0)) == 7


async def test_a_request_between_two_checks_starts_the_count_again() -> None:
    class Used(Diary):
        def models(self) -> tuple[ModelStatus, ...]:
            return (replace(RESTING, requests=5 if self.checks < 2 else 6),)

    assert await checks_until_idle(Used()) == 2 + 3


async def test_a_model_that_still_loads_is_not_idle() -> None:
    class Loading(Diary):
        def models(self) -> tuple[ModelStatus, ...]:
            return (replace(RESTING, state="loading" if self.checks < 4 else "ready"),)

    assert await checks_until_idle(Loading()) == 3 + 3


async def test_an_idle_gateway_is_asked_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_shim.serve.idle.idle", lambda engine: asyncio.sleep(0))
    closing = asyncio.Event()

    async with leaving_when_idle(cast(Engine, Diary()), closing):
        await asyncio.wait_for(closing.wait(), 5)
