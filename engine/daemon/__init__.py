"""One gateway per home folder: who serves, where it listens, how others find, start and stop it.

Two rules make every race harmless:

1. The truth is the operating system's lock on `run/gateway.lock`, held as long as the gateway lives. The
   kernel frees it on any death, so there is nothing stale to clean up. Process ids are for people to read,
   never evidence: they are reused.
2. A gateway is there when it answers an authenticated request, and only then. The endpoint file is a hint.
   Clients start gateways freely (a needless one loses the lock and leaves) and never end a busy one.
"""

from engine.daemon.claim import Claim, claim
from engine.daemon.endpoint import API, Endpoint
from engine.daemon.find import find, retire, stop
from engine.daemon.keep import keeping_its_place
from engine.daemon.start import ensure

__all__ = ["API", "Claim", "Endpoint", "claim", "ensure", "find", "keeping_its_place", "retire", "stop"]
