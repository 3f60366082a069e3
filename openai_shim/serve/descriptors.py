"""How many connections the system lets this process have."""

import logging
import sys

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000

WANTED_DESCRIPTORS = 4096
"""macOS refuses more than it has per process, which is 10,240 at least."""

RESERVED_DESCRIPTORS = 128
"""For files, workers and their pipes, and for the connections that asyncio accepts in one go."""


def connection_capacity() -> int:
    """Raises the soft limit of file descriptors where there is one, then leaves enough of it for the rest."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = WANTED_DESCRIPTORS if hard == unlimited else min(hard, WANTED_DESCRIPTORS)
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        logger.info("the limit of open files is raised from %d to %d", soft, wanted)
        soft = wanted
    available = MAX_CONNECTIONS if soft == unlimited else soft - RESERVED_DESCRIPTORS
    return max(RESERVED_DESCRIPTORS // 4, min(available, MAX_CONNECTIONS))
