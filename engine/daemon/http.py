"""HTTP between processes of one machine."""

import ssl

import httpx2

from engine.daemon.endpoint import Endpoint

CONNECT_SECONDS = 1.0
"""Who listens is connected with at once, however busy; Windows takes 2 s to refuse where nobody does."""

GONE = (httpx2.ConnectTimeout, httpx2.NetworkError, httpx2.RemoteProtocolError)
"""What a request raises whose gateway is no longer there: never connected, refused, or cut off."""


def patience(read_seconds: float | None) -> httpx2.Timeout:
    """None: the next byte of a reply may take as long as the caller has."""
    return httpx2.Timeout(read_seconds, connect=CONNECT_SECONDS)


def loopback_http(read_seconds: float | None, tls: ssl.SSLContext) -> httpx2.AsyncClient:
    """A client that waits `read_seconds` for each next byte of a reply (None: as long as the caller).

    tls: from `gateway_tls`. trust_env off: a proxy named in the environment must not get between client and
    gateway.
    """
    return httpx2.AsyncClient(timeout=patience(read_seconds), trust_env=False, verify=tls)


def gateway_tls(endpoint: Endpoint | None = None) -> ssl.SSLContext:
    """Trusts this gateway alone, by the very certificate that the endpoint file shows, whatever its names.

    Most gateways speak plain HTTP. Loading the list of authorities would take 25-70 ms and 5 MB.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if endpoint:
        trust(tls, endpoint)
    return tls


def trust(tls: ssl.SSLContext, endpoint: Endpoint) -> None:
    if endpoint.certificate:
        tls.load_verify_locations(cadata=endpoint.certificate)


def bearer(endpoint: Endpoint) -> dict[str, str]:
    return {"authorization": f"Bearer {endpoint.token}"}
