"""Bodies that arrive compressed."""

import zlib
from http import HTTPStatus

from sanic.exceptions import PayloadTooLarge

from openai_shim.http.errors import BadParameter, RequestRefused

_GZIP = 31  # zlib's number for it, with the largest window


def check_encoding(encoding: str) -> None:
    """Raises RequestRefused (415) for what `decoded` cannot read."""
    if encoding not in ("", "identity", "gzip"):
        raise RequestRefused(
            "Send the body as it is or compressed with gzip (`Content-Encoding: gzip`).",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            code="unsupported_content_encoding",
            headers={"accept-encoding": "gzip"},
        )


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """limit: bytes, of the result. Raises PayloadTooLarge, or BadParameter for what is no whole gzip."""
    return _unzipped(body, limit) if encoding == "gzip" else body


def _unzipped(body: bytes, limit: int) -> bytes:
    """A gzip file may be several, one behind the other."""
    unzipped = bytearray()
    while body:
        member = zlib.decompressobj(_GZIP)
        try:
            unzipped += member.decompress(body, limit + 1 - len(unzipped))
        except zlib.error as error:
            raise BadParameter(f"The body is not valid gzip: {error}.") from error
        if len(unzipped) > limit:
            raise PayloadTooLarge
        if not member.eof:
            raise BadParameter("The body is not valid gzip: it breaks off before its end.")
        body = member.unused_data
    return bytes(unzipped)
