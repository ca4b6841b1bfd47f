"""How long each part of a change of holder may take."""

from __future__ import annotations

import msgspec


class HandoffTimes(msgspec.Struct, frozen=True):
    """Bounds in seconds. What takes longer ends the handoff with the outgoing machine awake."""

    prepare_s: float = 10.0
    """Until the target is in the electorate."""
    tail_s: float = 5.0
    """Until the target acknowledges the first manifest; messages are still taken in meanwhile."""
    drain_s: float = 3.0
    """For agents at work to come to their end; what has not is cancelled and runs again on the target."""
    ack_s: float = 2.0
    """Until the target acknowledges the second manifest."""
    pass_s: float = 10.0
    """Until the new epoch is seen; a hub far away takes its time."""
    settle_s: float = 2.0
    """How long the target waits to find itself awake after it lost sight of the source."""
    floor_s: float = 10.0
    """Least time between a change of holder and an *automatic* handoff; a person is never held up."""

    @property
    def total_s(self) -> float:
        """Longest time from asking to the answer."""
        return self.prepare_s + self.tail_s + 2 * self.drain_s + self.ack_s + self.pass_s + 2.0

    def hurried(self, within: float) -> HandoffTimes:
        """The same handoff in ``within`` seconds at most: agents get a tenth of it to come to their end."""
        return HandoffTimes(
            prepare_s=within * 0.2,
            tail_s=within * 0.2,
            drain_s=within * 0.1,
            ack_s=within * 0.1,
            pass_s=within * 0.4,
            settle_s=self.settle_s,
            floor_s=self.floor_s,
        )


DEFAULT_TIMES = HandoffTimes()
