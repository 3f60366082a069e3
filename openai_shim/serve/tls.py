"""HTTPS, if the configuration names a certificate."""

import re
import ssl
from dataclasses import dataclass

from engine.errors import BadInput
from engine.settings import Settings

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Tls:
    """certificate: the gateway's own, as PEM, for its clients on this machine to recognise it by."""

    context: ssl.SSLContext
    certificate: str


def configured_tls(settings: Settings) -> Tls | None:
    """Raises BadInput when the files cannot be used."""
    if not settings.tls_certificate or not settings.tls_key:
        return None
    certificate = settings.home.root / settings.tls_certificate
    key = settings.home.root / settings.tls_key
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # No passphrase: asking for one would hang a gateway that nobody watches.
        context.load_cert_chain(certificate.expanduser(), key.expanduser(), password="")
        first = _PEM.search(certificate.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"tls_certificate {certificate} and tls_key {key} cannot be used: {error}",
            field="tls_certificate",
        ) from error
    assert first is not None  # load_cert_chain found it
    return Tls(context, first[0])
