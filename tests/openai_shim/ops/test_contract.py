"""The document and the routes, held against each other by schemathesis: it reads the one and asks the other.

Against a gateway that runs: `schemathesis run http://127.0.0.1:8000/openapi.json`.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from engine.types import ModelStatus
from openai_shim.app import all_routes
from openai_shim.ops.metrics import Metrics
from openai_shim.ops.openapi import document
from tests.openai_shim.conftest import gateway
from tests.openai_shim.fakes import FakeEngine

API = schemathesis.openapi.from_dict(document(all_routes(Metrics(FakeEngine().as_engine))))


class ReadyEngine(FakeEngine):
    async def load(self, model_id: str) -> ModelStatus:
        return self.model(model_id)

    unload = load


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a gateway in a thread, with an event loop of its own: schemathesis blocks while it waits."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(gateway(ReadyEngine())) as running,
    ):
        yield f"http://127.0.0.1:{running.port}"


@API.parametrize()
@settings(max_examples=150, deadline=None)
def test_what_the_document_allows_and_forbids_is_answered_as_it_says(case: Case[Any], url: str) -> None:
    """No 5xx; status, type, headers and schema as documented, of each event too; what it forbids is refused.

    Not the other way round: what fields must have in common is said by the errors, not by the schemas.
    """
    reply = case.call(base_url=url, timeout=10)

    case.validate_response(reply, excluded_checks=[positive_data_acceptance])
