"""The state that the lease vouches for: whether it is here, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from instar_node.background import Background
from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.errors import InstarError
from instar_node.sync.ports import StateLease
from instar_node.sync.state_copy import StateCopy
from instar_node.sync.worker import Worker

ARRIVES_S = 2.0
"""Seconds that a state may be on its way before anything is said."""
LOOK_S = 0.05
"""Seconds between two looks of who waits for it."""


class VouchedState:
    """Compares what this machine holds and has verified with ``state_head`` of the newest record it knows.

    A record that names another commit is looked at beside the steps of the sync, which may have to wait for a
    hub or a machine; the copy itself keeps what was found while its line grows. So a machine that has the
    state knows it within moments, whatever else it does.
    """

    def __init__(self, lease: StateLease, copy: StateCopy, worker: Worker, clock: Clock) -> None:
        self._lease = lease
        self._copy = copy
        self._worker = worker
        self._clock = clock
        self._changed = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._missed: str | None = None
        """The commit that was looked for last and not found."""
        self._missed_at = 0
        self._task = Background("state-vouched", self._run)

    def start(self) -> None:
        """Begin to follow the lease."""
        self._lease.on_change(self._changed.set)
        self._changed.set()
        self._task.start()

    async def stop(self) -> None:
        """Follow it no more."""
        await self._task.stop()

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.look()

    @property
    def commit(self) -> str:
        """The commit that the newest lease record names; empty when it names none."""
        return self._lease.state_head

    @property
    def here(self) -> bool:
        """Whether our line has it, as far as was looked: ``False`` until a new one is found, too."""
        return not self.commit or self._copy.surely_has(self.commit)

    @property
    def missing(self) -> bool:
        """Whether it has not come for longer than a state that is on its way takes."""
        late = self._clock.now() - self._missed_at > ARRIVES_S * MICROS_PER_SECOND
        return late and self._missed == self.commit and not self.here

    async def look(self) -> bool:
        """Look for it in our line, and tell when it is found there anew."""
        if self.here:
            return True
        wanted = self.commit
        if await self._worker.run(self._copy.find, wanted):
            self.tell()
        elif wanted != self._missed:
            self._missed, self._missed_at = wanted, self._clock.now()
        return self.here

    def on_here(self, callback: Callable[[], None]) -> None:
        """Be called when ``here`` may have become true."""
        self._callbacks.append(callback)

    def tell(self) -> None:
        """Our line has grown, or was found to have it."""
        for callback in self._callbacks:
            callback()

    async def require(self, within: float) -> None:
        """Wait for it, ``within`` seconds at most. Raises ``InstarError("state-behind")``."""
        try:
            async with asyncio.timeout(within):
                while not await self.look():
                    await self._clock.sleep(LOOK_S)
        except TimeoutError:
            raise InstarError(
                "state-behind",
                f"this machine lacks state {self.commit[:12]}, for which the lease vouches",
                "`instar sync` says why; it comes from the hub, or from a machine that has it",
                status=503,
            ) from None
