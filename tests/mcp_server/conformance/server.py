"""The product's server and its HTTP face, with the conformance suite's fixtures beside the product's tools.

Run as `python -m tests.mcp_server.conformance.server`; prints its address. The suite cannot send a token, so
a layer in front of the product's own check adds it to every request.
"""

from functools import partial

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.daemon import ensure
from engine.settings import Home, Settings
from mcp_server.http import create_app, run
from mcp_server.server import create_server
from tests.mcp_server.canned import command
from tests.mcp_server.conformance.fixtures import add_fixtures
from tests.mcp_server.conformance.questions import add_questions

KEY = "a-key-of-the-configuration"


class TokenAdded:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            MutableHeaders(scope=scope)["authorization"] = f"Bearer {KEY}"
        await self._app(scope, receive, send)


if __name__ == "__main__":
    settings = Settings(Home.locate(), api_key=KEY)
    server = create_server(settings.home, partial(ensure, settings.home, command=command()))
    add_fixtures(server)
    add_questions(server)
    run(TokenAdded(create_app(server, settings)), 0, partial(print, flush=True))
