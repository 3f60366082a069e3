"""HTTP between processes of one machine."""

import ssl

import httpx2

from engine.daemon.endpoint import Endpoint


def loopback_http(read_seconds: float | None) -> httpx2.AsyncClient:
    """A client that waits `read_seconds` for each next byte of a reply (None: as long as the caller).

    trust_env off: a proxy named in the environment must not get between client and gateway.
    The empty TLS context saves loading the list of authorities (25-70 ms, 5 MB); gateways speak plain HTTP.
    """
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(read_seconds, connect=1.0),
        trust_env=False,
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )


def bearer(endpoint: Endpoint) -> dict[str, str]:
    return {"authorization": f"Bearer {endpoint.token}"}
