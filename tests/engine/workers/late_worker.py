"""A worker that has loaded its model in the moment in which it is told to end."""

import os

from engine.workers.channel import inherited_channel
from engine.workers.handshake import Ready, assigned

if __name__ == "__main__":
    channel = inherited_channel()
    assigned(channel, os.getpid())
    try:
        channel.receive()
    except EOFError:
        channel.send(Ready())
