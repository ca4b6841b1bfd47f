"""What the holder may conclude about a run on another machine, from what it sent and heard. Pure."""

from __future__ import annotations

import math
from enum import Enum

from instar_node.clock import MICROS_PER_SECOND

KILL_GRACE_US = MICROS_PER_SECOND
"""Time the owner has to notice a lapsed grant and to end the process group (SIGTERM, SIGKILL)."""
KEEPS_A_TTL = 3


class Step(Enum):
    """What to do next for a remote run."""

    ORDER = "order"
    KEEP = "keep"
    WAIT = "wait"
    LOST = "lost"


class RemoteGrant:
    """One grant given to another machine.

    The owner kills the run when ``ttl`` has passed on its clock since the instant named in the last order or
    keep-alive, which was before that was sent; so the holder may let another machine start once ``ttl`` and
    the drift between both clocks have passed since the last one it sent, and the owner has had time to kill.

    Args:
        ttl_us: Length of the grant.
        drift: Assumed largest clock-rate error of one machine (0.01 = 1 %).
        inherited: Up to when an earlier holder may have extended a grant of its own for the same message;
            ``None`` if there was none.
    """

    def __init__(self, ttl_us: int, drift: float, inherited: int | None = None) -> None:
        self._ttl = ttl_us
        self._bound = math.ceil(ttl_us * (1 + drift) / (1 - drift)) + KILL_GRACE_US
        self._last_extended = inherited
        self._last_heard = inherited
        self._ordered = False
        self.since = 0
        """The newest reading of the owner's clock: from when on the next keep-alive extends the grant."""

    def step(self, now: int, connected: bool) -> Step:
        """What to do now. ``LOST``: the run has surely ended (or never began); run it anew elsewhere."""
        if connected and not self._silent(now):
            return Step.KEEP if self._ordered else Step.ORDER
        if self._last_extended is None or now >= self._last_extended + self._bound:
            return Step.LOST
        return Step.WAIT

    def extending(self, now: int) -> None:
        """An order or a keep-alive is about to be sent: it may arrive, whatever we hear."""
        self._last_extended = now
        if self._last_heard is None:
            self._last_heard = now

    def accepted(self, now: int, owners_now: int) -> None:
        """The owner has the order; its clock says ``owners_now``."""
        self._ordered, self._last_heard, self.since = True, now, owners_now

    def alive(self, now: int, owners_now: int) -> None:
        """The owner still has the run; its clock says ``owners_now``."""
        self._last_heard, self.since = now, owners_now

    def forgotten(self) -> None:
        """The owner does not have the run (it restarted), or its tunnel broke: order again when possible."""
        self._ordered = False

    def wait_us(self, now: int) -> int:
        """How long nothing needs to be done."""
        pause = self._ttl // KEEPS_A_TTL
        if self._last_extended is not None:
            pause = min(pause, max(self._last_extended + self._bound - now, 1_000))
        return pause

    def _silent(self, now: int) -> bool:
        return self._last_heard is not None and now - self._last_heard > self._ttl
