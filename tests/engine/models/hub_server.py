"""A local server that speaks as much of the Hugging Face hub's protocol as fetching a model takes.

    with HubServer("BAAI/bge-small-en-v1.5", {"config.json": b"{}"}) as hub:
        ...  # HF_ENDPOINT=hub.url
        hub.requests == ["GET /BAAI/bge-small-en-v1.5/resolve/..."]

Faults are attributes: set them before the requests they are for.
"""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.engine.models.local_server import LocalServer, QuietHandler

COMMIT = "1d5a3f0c" * 5


class HubServer(LocalServer):
    """requests: what was asked so far, as "METHOD path", with " bytes=N-" for a request with a Range.

    refuse_with: status of every answer.
    answer_html: answer 200 with a page, as the log-in page of a network does.
    token: what a caller must bring.
    cut_after: close the connection after so many bytes of a file, once.
    stall_after: send so many bytes of a file, then nothing until the server closes; once.
    damage: how many of the next file transfers carry one flipped bit.
    """

    def __init__(self, repo: str, files: Mapping[str, bytes]) -> None:
        super().__init__(_Handler)
        self.repo = repo
        self.files = files
        self.refuse_with: int | None = None
        self.answer_html = False
        self.token: str | None = None
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        self.damage = 0


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: HubServer, *connection: Any) -> None:
        self.hub = hub
        super().__init__(*connection)

    def do_GET(self) -> None:
        hub = self.hub
        path, wanted_range = unquote(urlsplit(self.path).path), self.headers.get("Range")
        hub.requests.append(f"{self.command} {path}" + (f" {wanted_range}" if wanted_range else ""))
        self.close_connection = True
        files = f"/{hub.repo}/resolve/{COMMIT}/"
        if hub.refuse_with:
            self._answer(hub.refuse_with, b"", {"X-Error-Message": "refused"})
        elif hub.answer_html:
            self._answer(200, b"<html>Please log in to this network</html>", {"Content-Type": "text/html"})
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._answer(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path.startswith(files) and path.removeprefix(files) in hub.files:
            self._send_file(hub.files[path.removeprefix(files)], wanted_range)
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _send_file(self, content: bytes, wanted_range: str | None) -> None:
        hub = self.hub
        start = int(wanted_range.removeprefix("bytes=").removesuffix("-")) if wanted_range else 0
        body = bytearray(content[start:])
        if hub.damage:
            hub.damage -= 1
            body[-1] ^= 1
        self.send_response(206 if wanted_range else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        if wanted_range:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if hub.cut_after is not None:
            body, hub.cut_after = body[: hub.cut_after], None
        elif hub.stall_after is not None:
            body, hub.stall_after = body[: hub.stall_after], None
            self.wfile.write(body)
            hub.closing.wait()
            return
        self.wfile.write(body)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
