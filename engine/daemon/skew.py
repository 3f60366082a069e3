"""Gateways of other versions: the newest program of this home decides which gateway serves it.

A gateway started by a client gives way to a newer client and finishes its work first. One started by hand is
its user's business and serves every client that speaks its API. Older clients never replace newer gateways:
two installed versions cannot take turns for ever.
"""

from packaging.version import Version

from engine import __version__
from engine.daemon.endpoint import API, Endpoint, read
from engine.daemon.find import answers, retire
from engine.daemon.lock import home_lock, is_held
from engine.errors import GatewayUnreachable
from engine.settings import Home


def is_outdated(endpoint: Endpoint) -> bool:
    return endpoint.auto_started and Version(endpoint.version) < Version(__version__)


async def make_way(home: Home) -> None:
    """Ask gateways with an older API, which this program cannot use, to leave.

    Raises GatewayUnreachable if a gateway with a newer API runs.
    """
    if not is_held(home_lock(home, "gateway")):
        return
    for file in home.run.glob("endpoint-v*.json"):
        number = file.stem.removeprefix("endpoint-v")  # of somebody's copy, no number
        is_other = number.isdecimal() and int(number) != API
        endpoint = read(home, int(number)) if is_other else None
        if endpoint is None or not await answers(endpoint):
            continue
        if endpoint.api > API:
            raise GatewayUnreachable(
                f"The gateway at {endpoint.url} is newer (version {endpoint.version}) than this program "
                f"({__version__}). Restart this program; if that does not help, update npu-gateway here too."
            )
        await retire(endpoint)
