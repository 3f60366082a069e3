"""What somebody reads who asks at an address where nothing is: mostly a base URL is wrong."""

from http import HTTPStatus

from sanic.exceptions import MethodNotAllowed, NotFound

from openai_shim.http.context import App, Request
from openai_shim.http.errors import RequestRefused

PREFIX = "/v1"


def nothing_at(request: Request) -> RequestRefused:
    """A 404 that names the address meant, where one is near."""
    return RequestRefused(_advice(request.app, request.path), status=HTTPStatus.NOT_FOUND, code="not_found")


def _advice(app: App, path: str) -> str:
    if path.startswith(f"{PREFIX}{PREFIX}/") and _exists(app, path.removeprefix(PREFIX)):
        return f"The base URL has {PREFIX} twice: this is at {path.removeprefix(PREFIX)}."
    if _exists(app, PREFIX + path):
        return f"This is at {PREFIX}{path}: the base URL of OpenAI clients ends in {PREFIX}."
    if path.startswith(f"{PREFIX}/"):
        return "This gateway does not have this part of the OpenAI API; /openapi.json says what it has."
    return f"There is nothing at this address. The OpenAI routes start with {PREFIX}, as in {PREFIX}/models."


def _exists(app: App, path: str) -> bool:
    try:
        app.router.get(path, "GET", None)
    except MethodNotAllowed:
        return True
    except NotFound:
        return False
    return True
