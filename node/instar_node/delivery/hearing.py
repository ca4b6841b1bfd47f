"""Whom a holder must hear before it acts on anything that is older than its time.

What was acknowledged or sent before is on the disk of every machine of the former electorate, so a holder
that comes from there need not ask: it only gives those who are there a moment to hand up what is theirs
(``ROUND_US``). A holder whose own disk went back in time knows less than others do: it acts on nothing until
everybody within reach has reported, and asks who is out of reach as soon as they are back.
"""

from __future__ import annotations

from collections.abc import Iterable

from instar_node.clock import MICROS_PER_MS

ROUND_US = 300 * MICROS_PER_MS
"""How long a new holder waits at most for machines that are there and silent."""


class Hearing:
    """The reports of one epoch of ours. Times are microseconds of ``Clock.now``."""

    def __init__(self) -> None:
        self._expected: frozenset[str] = frozenset()
        self._heard: set[str] = set()
        self._until = 0
        self.distrusted = False
        """Whether our own ledger was found to lack what it once had."""

    def begin(self, connected: Iterable[str], now: int) -> None:
        """An epoch of ours begins while these machines are within reach."""
        self._expected, self._heard = frozenset(connected), set()
        self._until = now + ROUND_US
        self.distrusted = False

    def hear(self, machine: str) -> None:
        """All that only this machine had is in our ledger."""
        self._heard.add(machine)

    def distrust(self) -> None:
        """Our own disk went back in time."""
        self.distrusted = True

    def unheard(self, machines: Iterable[str]) -> frozenset[str]:
        """Those that have not reported."""
        return frozenset(machines) - self._heard

    def wait_us(self, connected: frozenset[str], now: int) -> int | None:
        """How long still to wait for the machines within reach: 0 = not any more, ``None`` = as long as it
        takes."""
        if self.distrusted:
            return None if connected - self._heard else 0
        if (self._expected & connected) - self._heard:
            return max(0, self._until - now)
        return 0
