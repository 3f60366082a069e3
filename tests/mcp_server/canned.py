"""How tests start, count and stop canned gateways, without importing what those consist of."""

import sys
from pathlib import Path

from engine.daemon import stop
from engine.settings import Home

NO_HOME = Home(Path("does-not-exist"))
"""For servers that write nothing."""
PROGRAM = Path(__file__).with_name("canned_gateway.py")


def command(port: int = 0) -> tuple[str, ...]:
    """For `engine.daemon.ensure`. port 0: a free one."""
    return sys.executable, str(PROGRAM), str(port)


def starts(home: Home) -> list[str]:
    """The instances of all canned gateways that ever got the lock of this home."""
    return (home.run / "starts").read_text().split()


def over(home: Home) -> Path:
    return home.root / "over"


async def dismiss(home: Home) -> None:
    """Stop the gateway of a test's home, also one that was only just being started and has no lock yet."""
    over(home).touch()
    await stop(home)
