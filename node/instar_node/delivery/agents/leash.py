"""How long an agent may go on, told to its launcher ahead of time.

A node that hangs, or is suspended without its agents, cannot kill them when its lease ends. So the launcher
knows the end beforehand and does it; the node only moves that end while the lease, or the grant, is renewed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from instar_node.clock import Clock

Until = Callable[[str], int]
"""Until when the agent may work on this message (its dedupe key): microseconds of ``Clock.now``."""

TELL_EVERY_S = 0.1
"""How often a new end is looked for. It moves every round, several times before it is reached."""


class Leash:
    """The lifeline of one run. Its write end is ours alone: the launcher sees when this process is gone."""

    def __init__(self, key: str, until: Until, clock: Clock) -> None:
        self._key = key
        self._until = until
        self._clock = clock
        self.end = -1
        """What the launcher was told last; -1 when nothing yet."""
        self.lifeline, self._ours = os.pipe()
        os.set_blocking(self._ours, False)

    def tell(self) -> None:
        """Tell the launcher the end, if it has moved: eight bytes, big-endian."""
        end = self._until(self._key)
        if end == self.end:
            return
        # A launcher that is gone, or hangs with a full pipe, is told nothing: its agent ends the sooner.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._ours, end.to_bytes(8, "big"))
            self.end = end

    async def keep(self) -> None:
        """Go on telling, until cancelled."""
        while True:
            self.tell()
            await asyncio.sleep(TELL_EVERY_S)

    @property
    def over(self) -> bool:
        """Whether the launcher has ended the agent by now."""
        return self._clock.now() >= self.end

    def close(self) -> None:
        """Let go of it; a launcher that still runs ends its agent."""
        os.close(self.lifeline)
        os.close(self._ours)
