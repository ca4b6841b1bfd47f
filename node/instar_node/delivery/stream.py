"""The holder's side of replication: one stream to one standby."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import msgspec

from instar_node.clock import Clock
from instar_node.contracts import LogPosition, Mesh, PeerError
from instar_node.delivery.entries import LogEntry, Mark
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.state import Totals
from instar_node.delivery.wire import (
    BATCH_BYTES,
    ReplicaAck,
    ReplicaAppend,
    ReplicaBegin,
    ReplicaBroken,
    ReplicaFollow,
    ReplicaMarks,
    ReplicaOffer,
    ReplicaReady,
    ReplicaRows,
)
from instar_node.errors import InstarError

Rep = TypeVar("Rep", bound=msgspec.Struct)
log = logging.getLogger("instar.delivery")

WINDOW_BYTES = 1024 * 1024
"""Entries sent and not yet acknowledged; beyond it the stream waits for the standby's disk."""
REQUEST_S = 5.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

_sessions = itertools.count(1)


class PeerStream:
    """Brings one standby level with our log and keeps it there, beginning anew after every break."""

    def __init__(
        self,
        peer: str,
        epoch: int,
        mesh: Mesh,
        ledger: MessageProcessingLedger,
        clock: Clock,
        on_ack: Callable[[str], None],
        on_anomaly: Callable[[str, str], None],
    ) -> None:
        """``on_ack(peer)`` is called when the peer got further; ``on_anomaly(peer, text)`` when its log shows
        that one of the two disks went back in time."""
        self.acked = LogPosition(0, 0)
        self.acked_totals: Totals | None = None
        """Totals of our log at ``acked``; ``None`` until the logs were compared."""
        self.joined = False
        """Whether all that only the standby had is in our log, and it follows."""
        self._peer = peer
        self._epoch = epoch
        self._mesh = mesh
        self._ledger = ledger
        self._clock = clock
        self._on_ack = on_ack
        self._on_anomaly = on_anomaly
        self._session = 0
        self._sent: deque[tuple[LogPosition, Totals]] = deque()
        self._failure: str | None = None
        self._nudged_at: LogPosition | None = None
        self._wake = asyncio.Event()
        self._kick = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"replica-{peer}")

    def stop(self) -> None:
        """End the stream."""
        self.joined = False
        self._task.cancel()

    def grown(self) -> None:
        """Our log has more."""
        self._wake.set()

    def kick(self) -> None:
        """The standby is ready for us: do not rest any longer."""
        self._kick.set()

    def nudge(self) -> None:
        """The standby is slow. If it made no progress since the last nudge, what was sent may be lost."""
        if self.joined and self.acked == self._nudged_at:
            self._failure = "nothing was acknowledged for a while"
            self._wake.set()
        self._nudged_at = self.acked

    def on_ack(self, message: ReplicaAck) -> None:
        """The standby synced up to a position."""
        if message.session != self._session or message.position <= self.acked:
            return
        self.acked = message.position
        while self._sent and self._sent[0][0] <= self.acked:
            self.acked_totals = self._sent.popleft()[1]
        self._wake.set()
        self._on_ack(self._peer)

    def on_broken(self, message: ReplicaBroken) -> None:
        """The standby cannot go on with this stream."""
        if message.session == self._session:
            self._failure = message.reason
            self._wake.set()

    # -- the life of a stream ---------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            before = self.acked
            try:
                await self._stream(await self._meet())
            except (PeerError, InstarError) as error:
                log.info("replication to %s: %s", self._peer, error)
            except Exception:
                log.exception("replication to %s failed", self._peer)
            self.joined = False
            pause = FIRST_PAUSE_S if self.acked > before else min(pause * 2, LONGEST_PAUSE_S)
            await self._rest(pause)

    async def _rest(self, pause: float) -> None:
        self._kick.clear()
        waiting = [asyncio.ensure_future(self._clock.sleep(pause)), asyncio.ensure_future(self._kick.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _meet(self) -> LogPosition:
        """Find where the logs part, take up what only the standby has; returns the position after it."""
        await self._ledger.ensure_open()
        self._session, self._failure = next(_sessions), None
        marks = await self._ledger.log.marks()
        theirs = await self._ask(ReplicaBegin(self._epoch, self._session, marks), ReplicaMarks)
        common = await self._ledger.log.greatest_common(theirs.marks)
        self._notice_anomaly(theirs.marks, common)
        ready = await self._ask(ReplicaFollow(self._epoch, self._session, common), ReplicaReady)
        if ready.cut:
            log.warning("%s had %d entries that we did not; taking them up", self._peer, ready.cut)
        taken = await self._take_up()
        await self._start_at(common)
        return taken

    async def _take_up(self) -> LogPosition:
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            page = await self._ask(ReplicaOffer(self._epoch, self._session, after), ReplicaRows)
            await self._ledger.adopt(page.rows, page.placements)
            after = page.next
        return await self._ledger.report(self._peer)

    async def _start_at(self, common: Mark) -> None:
        totals = await self._ledger.log.totals_at(common.position)
        self._sent.clear()
        self.acked, self.acked_totals = common.position, totals
        self.joined = True
        self._on_ack(self._peer)

    async def _stream(self, taken: LogPosition) -> NoReturn:
        """Send what follows, as it becomes durable here, within the window; ends by raising."""
        cursor, totals = self.acked, self.acked_totals or Totals(0, 0)
        self._send((), taken)
        while True:
            self._wake.clear()
            if self._failure is not None:
                raise InstarError("stream-broken", self._failure)
            if totals.bytes - (self.acked_totals or totals).bytes < WINDOW_BYTES:
                batch = await self._ledger.log.read_after(cursor, BATCH_BYTES)
                if batch and self._send(batch, taken):
                    cursor = batch[-1].position
                    size = sum(entry.size for entry in batch)
                    totals = Totals(totals.entries + len(batch), totals.bytes + size)
                    self._sent.append((cursor, totals))
                    continue
                if batch and not self._sent:
                    raise InstarError("peer-busy", "its tunnel takes nothing more")
            await self._wake.wait()

    def _send(self, entries: Sequence[LogEntry], taken: LogPosition) -> bool:
        return self._mesh.send(self._peer, ReplicaAppend(self._epoch, self._session, tuple(entries), taken))

    async def _ask(self, message: msgspec.Struct, reply: type[Rep]) -> Rep:
        return await self._mesh.request(self._peer, message, reply, within=REQUEST_S)

    def _notice_anomaly(self, theirs: tuple[Mark, ...], common: Mark) -> None:
        """Entries of our own epoch were durable here before any standby got them; so a standby that has some
        we do not share proves that one of the two disks went back in time."""
        for mark in theirs:
            if mark.epoch == self._epoch and mark > common:
                text = f"its log has entry {mark.epoch}.{mark.seq} of this very epoch, ours does not"
                self._on_anomaly(self._peer, text)
                return
