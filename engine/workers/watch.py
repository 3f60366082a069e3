"""Tells a worker that hangs from one that is slow, by what it owes and by the processor time that it uses.

Time counts only while this process is awake too: after a laptop's sleep nobody is late. A worker that is
starved by other programs uses little processor time, and gets as much of it as its work would need anywhere.
"""

from dataclasses import dataclass, field

STILL_SECONDS = 10.0
"""So long without using the processor, while it owes an answer, a worker is stopped or waits for ever."""

STILL_LOADING_SECONDS = 30.0
"""A cold disk, or a virus scanner on its first look, may keep a starting process waiting for longer."""

LOADING_CPU_SECONDS = 600.0

STILL_CPU_SECONDS = 0.02
"""Of the processor, in that time: what a process that only waits may use."""

LEAST_ALLOWED_SECONDS = 10.0
SLACK = 10.0
"""An answer may take so many times as long as expected."""

LONGEST_TICK_SECONDS = 2.0
"""More between two looks means that this process slept, or was stopped, itself."""


@dataclass
class Debt:
    """allowed_seconds: of processor time for the answer that is owed. still_seconds: without any."""

    allowed_seconds: float
    still_seconds: float = STILL_SECONDS
    silent_seconds: float = 0.0
    cpu_seconds: float = 0.0


def allowed(expected_seconds: float) -> float:
    return max(LEAST_ALLOWED_SECONDS, SLACK * expected_seconds)


@dataclass
class Watch:
    """Look about once a second. debts: what the worker owes, by any key."""

    debts: dict[object, Debt] = field(default_factory=dict)
    _looked_at: float | None = None
    _cpu_seconds: float = 0.0
    _still_seconds: float = 0.0
    _still_cpu_seconds: float = 0.0

    def owes(self, key: object, debt: Debt) -> None:
        self.debts.setdefault(key, debt)

    def paid(self, key: object) -> None:
        self.debts.pop(key, None)

    def look(self, now: float, cpu_seconds: float) -> str | None:
        """Why the worker must be taken for hanging; None while it need not.

        now: seconds of a clock that never goes back. cpu_seconds: that the worker has used since its start.
        """
        awake = min(now - (now if self._looked_at is None else self._looked_at), LONGEST_TICK_SECONDS)
        used = max(cpu_seconds - self._cpu_seconds, 0.0)
        self._looked_at, self._cpu_seconds = now, cpu_seconds
        if not self.debts:
            self._still_seconds = self._still_cpu_seconds = 0.0
            return None
        self._still_seconds += awake
        self._still_cpu_seconds += used
        if self._still_cpu_seconds > STILL_CPU_SECONDS:
            self._still_seconds = self._still_cpu_seconds = 0.0
        elif self._still_seconds >= min(debt.still_seconds for debt in self.debts.values()):
            return f"it stood still for {self._still_seconds:.0f} s"
        return self._overdue(awake, used)

    def _overdue(self, awake: float, used: float) -> str | None:
        for debt in self.debts.values():
            debt.silent_seconds += awake
            debt.cpu_seconds += used
            if min(debt.silent_seconds, debt.cpu_seconds) >= debt.allowed_seconds:
                return f"it gave no answer for {debt.silent_seconds:.0f} s of work"
        return None
