"""A gateway around a fake engine in a process that may have few files open: `LIMIT HOME`; prints its port."""

import asyncio
import resource
import sys
from pathlib import Path

from engine.settings import Home
from openai_shim.http.log import log_to_file
from openai_shim.serve.descriptors import connection_capacity
from tests.openai_shim.conftest import gateway
from tests.openai_shim.fakes import settings


async def serve(limit: int, home: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    log_to_file(settings(home=Home(home)), on_screen=False)
    async with gateway(capacity=connection_capacity()) as running:
        print(running.port, flush=True)  # noqa: T201
        await asyncio.Event().wait()


asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
