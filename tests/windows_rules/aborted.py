"""A client that gives up before the server has accepted its connection."""

FIRST_ACCEPT_FAILS = """
import socket
from tests.windows_rules.rules import accepts

accepts.enforce()
accept = socket.socket.accept

def fail_once(self):
    socket.socket.accept = accept
    raise OSError(22, "The specified network name is no longer available")

socket.socket.accept = fail_once
"""
"""For a process of its own, before what it serves: its default event loop is then like Windows' too."""
