"""Messages between the gateway and a worker: pickled frozen dataclasses, each behind its length.

Both ends are the same version of this program on the same machine, and the pipe belongs to the parent and
its child alone, which is what makes pickle acceptable here.
"""

import os
import pickle
import struct
import threading
from typing import BinaryIO

_LENGTH = struct.Struct("<Q")


class Channel:
    """One end of a two-way stream of messages. `send` may be called from any thread, `receive` from one."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Blocks while the pipe is full. Raises OSError when the other end is gone."""
        payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self._writer.write(_LENGTH.pack(len(payload)))
            self._writer.write(payload)
            self._writer.flush()

    def receive(self) -> object:
        """Blocks until a message is there. Raises EOFError when the other end is gone."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))  # noqa: S301 - written by our own parent or child

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise EOFError("the other end of the channel is gone")
        return data


def inherited_channel() -> Channel:
    """The worker's end, on the standard input and output it was started with.

    From here on file descriptor 1 leads to stderr, so that what native libraries print ends up in the log
    instead of between two messages.
    """
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel(reader, writer)
