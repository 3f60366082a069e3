"""`npu-gateway mcp`, except that the gateway it starts is the canned one."""

import sys
from functools import partial
from pathlib import Path

from engine.daemon import ensure
from engine.settings import Home
from mcp_server.process import serve

COMMAND = (sys.executable, str(Path(__file__)))

if __name__ == "__main__":
    home = Home.locate()
    canned = Path(__file__).with_name("canned_gateway.py")
    serve(home, partial(ensure, home, command=(sys.executable, str(canned), "0")))
