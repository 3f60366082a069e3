"""A local server that speaks as much of the Hugging Face hub's protocol as fetching a model takes.

    with HubServer("BAAI/bge-small-en-v1.5", {"config.json": b"{}"}) as hub:
        ...  # HF_ENDPOINT=hub.url
        hub.requests == ["GET /BAAI/bge-small-en-v1.5/resolve/..."]

Faults are attributes: set them before the requests they are for.
"""

import hashlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "1d5a3f0c" * 5


class HubServer:
    """requests: what was asked so far, as "METHOD path", with " bytes=N-" for a request with a Range.

    refuse_with: status of every answer.
    answer_html: answer 200 with a page, as the log-in page of a network does.
    token: what a caller must bring.
    cut_after: close the connection after so many bytes of a file, once.
    stall_after: send so many bytes of a file, then nothing until the server closes; once.
    damage: how many of the next file transfers carry one flipped bit.
    """

    def __init__(self, repo: str, files: Mapping[str, bytes]) -> None:
        self.repo = repo
        self.files = files
        self.requests: list[str] = []
        self.refuse_with: int | None = None
        self.answer_html = False
        self.token: str | None = None
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        self.damage = 0
        self.closing = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
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
        hub = self.server.hub
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

    def log_message(self, format: str, *args: Any) -> None:
        pass
