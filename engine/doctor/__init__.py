"""Checks of this machine and this installation, each one a function from a situation to a Finding.

Nothing here leaves the machine; the only connections are to the gateway that runs on it.
"""

from engine.doctor.examination import examine
from engine.doctor.finding import Finding, State

__all__ = ["Finding", "State", "examine"]
