"""A worker that does what the environment variable ODD says, each time it is started."""

import os
import time

from engine.workers.channel import inherited_channel
from engine.workers.handshake import LoadFailed, Ping, Pong, Ready, assigned

channel = inherited_channel()
odd = os.environ["ODD"]
if odd == "other version":
    channel.receive()
    channel.send(("0.0.1", os.getpid()))
elif odd == "other messages":
    assigned(channel, os.getpid())
    channel._writer.write((10).to_bytes(8, "little") + b"not pickle")
    channel._writer.flush()
else:
    assert assigned(channel, os.getpid()) == "the options"
match odd:
    case "crashes":
        os._exit(7)
    case "says why":
        channel.send(LoadFailed("the file is damaged"))
    case "hangs while loading":
        time.sleep(3600)
    case "fine" | "hangs":
        channel.send(Ready())
        while True:
            try:
                message = channel.receive()
            except EOFError:
                os._exit(0)
            if isinstance(message, Ping) and odd == "hangs":
                time.sleep(3600)
            channel.send(Pong() if isinstance(message, Ping) else message)
