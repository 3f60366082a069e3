"""`npu-gateway mcp`, except that the gateway it starts is the canned one. An argument is a port for HTTP."""

import sys
from functools import partial
from pathlib import Path

from engine.daemon import ensure
from engine.settings import Home, Settings
from mcp_server.process import serve

COMMAND = (sys.executable, str(Path(__file__)))

if __name__ == "__main__":
    home = Home.locate()
    canned = Path(__file__).with_name("canned_gateway.py")
    locate = partial(ensure, home, command=(sys.executable, str(canned), "0"))
    if len(sys.argv) == 1:
        serve(home, locate)
    else:
        from mcp_server.http import serve_http  # not above: the stdio process must not have it

        serve_http(Settings.load(), locate, int(sys.argv[1]), partial(print, flush=True))
