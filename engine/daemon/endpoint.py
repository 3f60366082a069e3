"""The endpoint file: where the running gateway listens and the token it wants."""

import json
import logging
import os
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from engine.files import move, remove_file
from engine.settings import Home

logger = logging.getLogger(__name__)

API = 1
"""Version of what clients and gateways say to each other; part of the file's name. Additions keep it."""


@dataclass(frozen=True)
class Endpoint:
    """A gateway that has published itself.

    instance: random, new with every start; tells one gateway from its successor on the same port.
    certificate: PEM, of a gateway that speaks HTTPS.
    flags: what `serve` was started with, for one that takes its place.
    """

    url: str
    token: str
    pid: int
    version: str
    api: int
    instance: str
    auto_started: bool
    certificate: str | None = None
    flags: tuple[str, ...] = ()


def endpoint_file(home: Home, api: int = API) -> Path:
    return home.run / f"endpoint-v{api}.json"


def read(home: Home, api: int = API) -> Endpoint | None:
    """What is published, or None. It may be left over from a killed gateway: ask before trusting it."""
    try:
        raw = json.loads(endpoint_file(home, api).read_text(encoding="utf-8"))
        known = {field.name: raw[field.name] for field in fields(Endpoint) if field.name in raw}
        endpoint = Endpoint(**known | {"flags": tuple(map(str, known.get("flags", ())))})
        return endpoint if _can_be_asked(endpoint) else None
    except (OSError, ValueError, TypeError, RecursionError):  # absent, being replaced (Windows), or damaged
        return None


def _can_be_asked(endpoint: Endpoint) -> bool:
    """Whether a request can be made of it. Raises ValueError or OSError for some of what cannot."""
    texts = (endpoint.url, endpoint.token, endpoint.version, endpoint.instance)
    if not all(isinstance(text, str) for text in texts):
        return False
    if endpoint.certificate:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=endpoint.certificate)
    url = urlsplit(endpoint.url)
    is_address = url.scheme in ("http", "https") and bool(url.hostname) and url.port is not None
    return is_address and endpoint.token.isascii() and endpoint.token.isprintable()


@contextmanager
def published(home: Home, endpoint: Endpoint) -> Iterator[None]:
    """Show the endpoint to clients for the length of the block. Only the holder of the lock may call this."""
    publish(home, endpoint)
    try:
        yield
    finally:
        unpublish(home, endpoint)


def publish(home: Home, endpoint: Endpoint) -> None:
    _write_private(endpoint_file(home), json.dumps(asdict(endpoint), indent=2))


def unpublish(home: Home, endpoint: Endpoint) -> None:
    """Take the endpoint down; no effect if it is down already or if another gateway's stands there."""
    if read(home) == endpoint:
        try:
            remove_file(endpoint_file(home))
        except PermissionError as error:  # a hint that is wrong does no harm: clients look at the lock first
            logger.warning("%s stays behind: %s", endpoint_file(home), error)


def _write_private(file: Path, text: str) -> None:
    """Write all or nothing, readable by this user only: the file holds the token."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        move(draft, file)
    finally:
        remove_file(draft)
