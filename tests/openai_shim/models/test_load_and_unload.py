"""Loading and unloading over HTTP."""

import pytest

from engine.errors import ModelNotReady
from engine.types import ModelState, ModelStatus
from tests.openai_shim.conftest import Gateway, gateway
from tests.openai_shim.fakes import CHATTER, FakeEngine
from tests.openai_shim.ops.test_openapi import assert_documented


class MovingEngine(FakeEngine):
    """after: the state in which `load` and `unload` leave every model."""

    def __init__(self, after: ModelState, error: Exception | None = None) -> None:
        super().__init__(error=error)
        self.after = after
        self.moved: list[tuple[str, str]] = []

    async def load(self, model_id: str) -> ModelStatus:
        return self._moved("load", model_id)

    async def unload(self, model_id: str) -> ModelStatus:
        return self._moved("unload", model_id)

    def _moved(self, verb: str, model_id: str) -> ModelStatus:
        self.moved.append((verb, model_id))
        if self.error:
            raise self.error
        self.states = {model_id: self.after}
        return self.model(model_id)


@pytest.mark.parametrize(
    ("verb", "after", "status"),
    [
        ("load", "ready", 200),
        ("load", "loading", 202),
        ("unload", "unloaded", 200),
        ("unload", "ready", 202),
    ],
)
async def test_the_status_says_whether_it_has_happened(verb: str, after: ModelState, status: int) -> None:
    engine = MovingEngine(after)
    async with gateway(engine) as running:
        reply = await running.http.post(f"/v1/models/{CHATTER}/{verb}")

        assert (reply.status_code, reply.json()["state"]) == (status, after)
        assert reply.json() == (await running.http.get(f"/v1/models/{CHATTER}")).json()
    assert engine.moved == [(verb, CHATTER)]
    assert_documented(reply, "post", f"/v1/models/{{model_id}}/{verb}")


async def test_a_name_with_a_slash_is_one_name() -> None:
    engine = MovingEngine("ready")
    async with gateway(engine) as running:
        reply = await running.http.post("/v1/models/openai/gpt-4o/load")

    assert engine.moved == [("load", "openai/gpt-4o")]
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_model_that_does_not_come_says_why() -> None:
    error = ModelNotReady("It is being fetched.", retry_after_seconds=10)
    async with gateway(MovingEngine("ready", error)) as running:
        reply = await running.http.post(f"/v1/models/{CHATTER}/load")

    assert (reply.status_code, reply.headers["retry-after"]) == (503, "10")
    assert reply.json()["error"]["message"] == "It is being fetched."


async def test_a_web_page_cannot_unload(running: Gateway) -> None:
    foreign = {"origin": "https://example.org"}
    reply = await running.http.post(f"/v1/models/{CHATTER}/unload", headers=foreign)

    assert reply.status_code == 403
