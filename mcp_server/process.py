"""The stdio process around the server, and every way it ends."""

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil

from engine.remote.client import Locate
from engine.settings import Home
from mcp_server.log import log_to

WATCH_SECONDS = 2.0


def serve(home: Home, locate: Locate) -> None:
    """Speak MCP on standard input and output until the input ends or the process that started us is gone."""
    log_to(home)  # before the SDK is imported and configures logging its own way
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # mcp 2.3 hangs on Ctrl-C until its input ends (python-sdk#3551)
    _leave_with(_client())

    gc.disable()  # all that the imports make stays: looking for garbage in it cost 8 % of the start-up
    from mcp_server.server import create_server

    server = create_server(home, locate)
    gc.freeze()
    gc.enable()
    server.run("stdio")
    os.dup2(2, 1)  # what libraries still flush while the interpreter ends must not reach the client


def _client() -> psutil.Process | None:
    """Who started this, beyond the launchers that Windows has for environments and for console scripts: those
    wait for us, and so never end first.
    """
    words = sys.orig_argv[1:]
    process = psutil.Process().parent()
    while process and _launches(process, words):
        process = process.parent()
    return process


def _launches(process: psutil.Process, words: list[str]) -> bool:
    """Whether its command line ends as ours does; a console script's begins with the script's name."""
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    if not line or not words:
        return False
    is_script = Path(line[0]).stem == Path(words[0]).stem and line[1:] == words[1:]
    return is_script or line[-len(words) :] == words


def _leave_with(client: psutil.Process | None) -> None:
    """End this process when its client has ended: a leaked handle can keep our standard input open for ever.

    Leaving without cleaning up is safe: the kernel closes the connections, and the gateway ends their work.
    """
    if client is None:
        return
    started_by = os.getppid()

    def watch() -> None:
        while os.getppid() == started_by and client.is_running():
            time.sleep(WATCH_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
