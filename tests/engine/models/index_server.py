"""A local package index with one wheel in it.

with IndexServer("tinymodel", wheel) as index:
    ...  # PIP_INDEX_URL=index.url
"""

import threading
from pathlib import Path
from typing import Any

from tests.engine.models.local_server import LocalServer, QuietHandler


class IndexServer(LocalServer):
    """requests: the paths asked for so far.

    damage: how many of the next transfers of the wheel carry one flipped bit.
    stall_after: send so many bytes of the wheel, then nothing until the server closes; once.
    """

    def __init__(self, project: str, wheel: Path) -> None:
        super().__init__(_Handler)
        self.project = project
        self.wheel = wheel
        self.damage = 0
        self.stall_after: int | None = None
        self.stalled = threading.Event()

    @property
    def url(self) -> str:
        return f"{super().url}/simple"


class _Handler(QuietHandler):
    def __init__(self, index: IndexServer, *connection: Any) -> None:
        self.index = index
        super().__init__(*connection)

    def do_GET(self) -> None:
        index = self.index
        index.requests.append(self.path)
        if self.path == f"/simple/{index.project}/":
            self._answer("text/html", f'<a href="/{index.wheel.name}">{index.wheel.name}</a>'.encode())
        elif self.path == f"/{index.wheel.name}":
            self._send_wheel()
        else:
            self.send_error(404)

    def _send_wheel(self) -> None:
        index = self.index
        body = bytearray(index.wheel.read_bytes())
        if index.damage:
            index.damage -= 1
            body[len(body) // 2] ^= 1
        if index.stall_after is None:
            self._answer("application/octet-stream", bytes(body))
            return
        sent, index.stall_after = bytes(body[: index.stall_after]), None
        self._answer("application/octet-stream", sent, length=len(body))
        index.stalled.set()
        index.closing.wait()

    def _answer(self, content_type: str, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length or len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)
