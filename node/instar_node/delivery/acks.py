"""Waiting until an entry is durable on every machine that an acknowledgement needs."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from instar_node.clock import MICROS_PER_MS, MICROS_PER_SECOND, Clock
from instar_node.contracts import Authority, LogPosition
from instar_node.errors import InstarError

NOWHERE = LogPosition(0, 0)


class AckGate:
    """Resolves waits when the electorate *of that instant* has an entry and the lease still holds.

    It is evaluated on every event that may change the answer, never by polling; only a wait that takes too
    long is looked at by time, to name who keeps it waiting.
    """

    def __init__(
        self,
        authority: Authority,
        clock: Clock,
        acked: Callable[[str], LogPosition],
        durable: Callable[[], LogPosition],
        on_slow: Callable[[str], None],
        slow_ms: int,
    ) -> None:
        self.watermark = NOWHERE
        """All up to here may have been acknowledged to somebody: the highest position let through, or
        inherited from an older epoch."""
        self._authority = authority
        self._clock = clock
        self._acked = acked
        self._durable = durable
        self._on_slow = on_slow
        self._slow_us = slow_ms * MICROS_PER_MS
        self._epoch: int | None = None
        """The epoch in which everything that waits has begun to."""
        self._waits: list[tuple[LogPosition, int, int, asyncio.Future[None]]] = []
        """Heap of (position, tie-break, since, future)."""
        self._ties = itertools.count()
        self._watchdog: asyncio.Task[None] | None = None

    async def wait(self, position: LogPosition) -> None:
        """Return once ``position`` is durable everywhere it must be. Raises ``InstarError("lease-lost")``."""
        epoch = self._authority.acting_epoch()
        if epoch is None:
            raise _lease_lost()
        if epoch != self._epoch:
            self._fail_all()
            self._epoch = epoch
        if position <= self._floor():
            self.watermark = max(self.watermark, position)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waits, (position, next(self._ties), self._clock.now(), future))
        if self._watchdog is None:
            self._watchdog = asyncio.create_task(self._watch(), name="slow-acks")
        await future

    def inherit(self, position: LogPosition) -> None:
        """Rows up to here came from older epochs, in whose time they may have been acknowledged."""
        self.watermark = max(self.watermark, position)

    def evaluate(self) -> None:
        """Something changed: an acknowledgement, our own disk, the lease or the electorate."""
        if not self._waits:
            return
        if self._authority.acting_epoch() != self._epoch:
            self._fail_all()
            return
        floor = self._floor()
        while self._waits and self._waits[0][0] <= floor:
            position, _, _, future = heapq.heappop(self._waits)
            self.watermark = max(self.watermark, position)
            if not future.done():
                future.set_result(None)

    def stop(self) -> None:
        """Fail what still waits."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._fail_all()

    def _floor(self) -> LogPosition:
        """Durable here and on every machine of the present electorate."""
        return min((self._acked(peer) for peer in self._authority.ack_set()), default=self._durable())

    def _fail_all(self) -> None:
        waits, self._waits = self._waits, []
        for *_, future in waits:
            if not future.done():
                future.set_exception(_lease_lost())

    async def _watch(self) -> None:
        """While anything waits: name the machines that keep it waiting for too long, again each period."""
        try:
            while self._waits:
                due = min(since for _, _, since, _ in self._waits) + self._slow_us
                left = due - self._clock.now()
                if left <= 0:
                    self._report(self._waits[0][0])
                    left = self._slow_us
                await self._clock.sleep(left / MICROS_PER_SECOND)
                self.evaluate()
        finally:
            self._watchdog = None

    def _report(self, position: LogPosition) -> None:
        for peer in sorted(self._authority.ack_set()):
            if self._acked(peer) < position:
                self._on_slow(peer)


def _lease_lost() -> InstarError:
    return InstarError(
        "lease-lost",
        "the lease ended before the message was safe on every in-sync machine",
        "repeat it with the same key: it is taken once",
        status=503,
    )
