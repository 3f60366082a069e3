"""HTTP between processes of one machine."""

import ssl

import httpx2

from engine.daemon.endpoint import Endpoint


def loopback_http(read_seconds: float | None, tls: ssl.SSLContext) -> httpx2.AsyncClient:
    """A client that waits `read_seconds` for each next byte of a reply (None: as long as the caller).

    tls: from `gateway_tls`. trust_env off: a proxy named in the environment must not get between client and
    gateway.
    """
    return httpx2.AsyncClient(timeout=httpx2.Timeout(read_seconds, connect=1.0), trust_env=False, verify=tls)


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
