"""Who may ask: no web page, no rebound name, and where keys are set nobody without one.

Runs before routing and before the body is read, so that what is refused costs nothing.
"""

import hmac
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from urllib.parse import urlsplit

from engine.daemon.listen import WILDCARDS
from engine.errors import Unavailable
from engine.settings import LOOPBACK_HOSTS, Settings
from openai_shim.http.context import GatewayContext, Request, adopt_request_id
from openai_shim.http.errors import RequestRefused

LIVENESS = "/healthz"
INTERNAL = "/internal/"


class Preflight(Exception):
    """A browser asks whether a page of an allowed origin may send a request. It does not send the key."""

    headers: Mapping[str, str] = MappingProxyType(
        {
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": "*, authorization",
            "access-control-allow-private-network": "true",
            "access-control-max-age": "7200",
        }
    )


def admit(request: Request) -> None:
    """Raises RequestRefused (401, 403, 421), Preflight, or Unavailable while the gateway shuts down."""
    adopt_request_id(request)
    _check_host(request)
    _check_origin(request)
    if request.path == LIVENESS:
        return
    _check_key(request)
    if not request.path.startswith(INTERNAL):
        refuse_if_closing(request.app.ctx)


def refuse_if_closing(context: GatewayContext) -> None:
    """Raises Unavailable: whoever tries again finds the next gateway."""
    if context.closing.is_set():
        raise Unavailable("The gateway is shutting down.", retry_after_seconds=5)


def _check_host(request: Request) -> None:
    """A page whose name was rebound to 127.0.0.1 still sends that name."""
    name = _host_name(request.headers.get("host", ""))
    if name not in _own_names(request.app.ctx.settings):
        raise RequestRefused(
            f"This gateway does not answer to the name {name!r}. Use http://127.0.0.1, or add the name to "
            "allowed_hosts in config.toml.",
            status=HTTPStatus.MISDIRECTED_REQUEST,
            code="host_not_allowed",
        )


def _own_names(settings: Settings) -> set[str]:
    bound = () if settings.host in WILDCARDS else (settings.host,)
    return {name.lower() for name in (*LOOPBACK_HOSTS, *settings.allowed_hosts, *bound)}


def _host_name(host: str) -> str:
    """`[::1]:8000` -> `::1`; empty if it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _check_origin(request: Request) -> None:
    """Browsers name the page a request comes from; only the gateway's own and configured ones may ask."""
    origin = request.headers.get("origin")
    host = request.headers.get("host")
    if origin is None or origin in (f"http://{host}", f"https://{host}"):
        return
    if origin not in request.app.ctx.settings.cors_origins:
        raise RequestRefused(
            "Web pages of other origins may not use this gateway, unless cors_origins in config.toml names "
            "them.",
            status=HTTPStatus.FORBIDDEN,
            code="origin_not_allowed",
        )
    request.ctx.headers |= {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "*",
        "vary": "origin",
    }
    if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
        raise Preflight


def _check_key(request: Request) -> None:
    context = request.app.ctx
    token = (context.endpoint.token,) if context.endpoint else ()
    internal = request.path.startswith(INTERNAL)
    if not internal and not context.accepted_keys:
        return
    accepted = token if internal else (*context.accepted_keys, *token)
    # Every key is compared, in constant time: neither which one matched nor how nearly shows.
    matches = [hmac.compare_digest(given, _bytes(key)) for given in _given_keys(request) for key in accepted]
    if not any(matches):
        raise RequestRefused(
            "Send the gateway's key as `Authorization: Bearer KEY`; `npu-gateway token` prints it.",
            status=HTTPStatus.UNAUTHORIZED,
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def _given_keys(request: Request) -> list[bytes]:
    """Clients written for Azure or Anthropic have headers of their own; some send two of the three."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    named = [request.headers.get(name, "") for name in ("api-key", "x-api-key")]
    given = [bearer, *named] if scheme.lower() == "bearer" else named
    return [_bytes(key.strip()) for key in given if key.strip()]


def _bytes(text: str) -> bytes:
    """Header bytes outside UTF-8 reach us as surrogates."""
    return text.encode(errors="surrogateescape")
