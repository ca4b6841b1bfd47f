"""The holder's side of replication: one stream to one standby."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NoReturn, Protocol, TypeVar

import msgspec

from instar_node.clock import Clock, wait_for
from instar_node.contracts import LogPosition, Mesh, PeerError, Placement
from instar_node.delivery.entries import Cut, LogEntry, Mark
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.rows import MessageRow
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


class StreamWatcher(Protocol):
    """Who is told what becomes of a stream."""

    def progressed(self, peer: str) -> None:
        """The peer has more of our log, or began to follow it."""

    def met(self, peer: str, taken: LogPosition) -> None:
        """All that only the peer had is in our log, which reached ``taken`` by it."""

    def went_back(self, machine: str, peer: str, text: str) -> None:
        """The log of ``peer`` shows that the disk of ``machine`` went back in time."""


class PeerStream:
    """Brings one standby level with our log and keeps it there, beginning anew after every break."""

    def __init__(
        self,
        peer: str,
        epoch: int,
        mesh: Mesh,
        ledger: MessageProcessingLedger,
        clock: Clock,
        watcher: StreamWatcher,
        remembered: LogPosition,
    ) -> None:
        """``remembered`` is how far the peer said, earlier in this epoch, that it has our log on its disk."""
        self.acked = LogPosition(0, 0)
        self.acked_totals: Totals | None = None
        """Totals of our log at ``acked``; ``None`` until the logs were compared."""
        self.joined = False
        """Whether all that only the standby had is in our log, and it follows."""
        self.acks = 0
        """Acknowledgements heard, also those that bring nothing new."""
        self._acked = asyncio.Event()
        self._peer = peer
        self._epoch = epoch
        self._mesh = mesh
        self._ledger = ledger
        self._clock = clock
        self._watcher = watcher
        self._remembered = remembered
        self._session = 0
        self._taken = LogPosition(0, 0)
        self._cursor: LogPosition | None = None
        """Everything up to here was sent; ``None`` while the standby does not follow."""
        self._cursor_totals = Totals(0, 0)
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
        """Our log has more. As far as the window allows, what is in memory is sent before this returns."""
        while self._cursor is not None and self._has_room():
            batch = self._ledger.log.newest_after(self._cursor, BATCH_BYTES)
            if batch is None or (batch and not self._send_batch(batch)):
                self._wake.set()
                return
            if not batch:
                return

    def kick(self) -> None:
        """The standby is ready for us: do not rest any longer."""
        self._kick.set()

    def nudge(self) -> None:
        """The standby is slow. If it made no progress since the last nudge, what was sent may be lost."""
        if self.joined and self.acked == self._nudged_at:
            self._failure = "nothing was acknowledged for a while"
            self._wake.set()
        self._nudged_at = self.acked

    async def round_trip(self) -> None:
        """Have the standby acknowledge an append of nothing, through the writer of its disk.

        Wait with a timeout: what is sent while the stream begins anew is not answered. Raises
        ``stream-broken`` when there is no stream to send it on.
        """
        before = self.acks
        if not self.joined or not self._send(()):
            raise InstarError("stream-broken", "the standby does not follow this machine's log")
        while self.acks == before:
            self._acked.clear()
            await self._acked.wait()

    def on_ack(self, message: ReplicaAck) -> None:
        """The standby synced up to a position."""
        if message.session != self._session:
            return
        self.acks += 1
        self._acked.set()
        if message.position <= self.acked:
            return
        self.acked = message.position
        while self._sent and self._sent[0][0] <= self.acked:
            self.acked_totals = self._sent.popleft()[1]
        self._wake.set()
        self._watcher.progressed(self._peer)

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
        await wait_for(self._clock, self._kick, pause)

    async def _meet(self) -> LogPosition:
        """Find where the logs part, take up what only the standby has; returns the position after it."""
        await self._ledger.ensure_open()
        self._session, self._failure = next(_sessions), None
        marks = await self._ledger.log.marks()
        theirs = await self._ask(ReplicaBegin(self._epoch, self._session, marks), ReplicaMarks)
        common = await self._ledger.log.greatest_common(theirs.marks)
        self._remember(common.position)
        ready = await self._ask(ReplicaFollow(self._epoch, self._session, common), ReplicaReady)
        await self._examine(ready.cuts)
        if ready.cut:
            log.warning("%s had %d entries that we did not; taking them up", self._peer, ready.cut)
        taken = await self._take_up()
        await self._start_at(common)
        return taken

    async def _take_up(self) -> LogPosition:
        """Join all of it at once: in parts, an earlier message could be answered after a later one."""
        after: tuple[str, str] | None = ("", "")
        rows: list[MessageRow] = []
        placements: list[Placement] = []
        while after is not None:
            page = await self._ask(ReplicaOffer(self._epoch, self._session, after), ReplicaRows)
            rows += page.rows
            placements += page.placements
            after = page.next
        await self._ledger.adopt(self._peer, rows, placements)
        taken = await self._ledger.report(self._peer)
        self._watcher.met(self._peer, taken)
        return taken

    async def _start_at(self, common: Mark) -> None:
        totals = await self._ledger.log.totals_at(common.position)
        self._sent.clear()
        self.acked, self.acked_totals = common.position, totals
        self.joined = True
        self._watcher.progressed(self._peer)

    async def _stream(self, taken: LogPosition) -> NoReturn:
        """Send what follows, within the window: what is there at the beginning or was held up, that is; the
        rest is sent as it becomes durable here (``grown``). Ends by raising."""
        self._taken = taken
        self._cursor, self._cursor_totals = self.acked, self.acked_totals or Totals(0, 0)
        self._send(())
        try:
            while True:
                self._wake.clear()
                if self._failure is not None:
                    raise InstarError("stream-broken", self._failure)
                if self._has_room():
                    cursor = self._cursor
                    batch = await self._ledger.log.read_after(cursor, BATCH_BYTES)
                    if cursor != self._cursor or (batch and self._send_batch(batch)):
                        continue
                    if batch and not self._sent:
                        raise InstarError("peer-busy", "its tunnel takes nothing more")
                await self._wake.wait()
        finally:
            self._cursor = None

    def _has_room(self) -> bool:
        acked = self.acked_totals or self._cursor_totals
        return self._cursor_totals.bytes - acked.bytes < WINDOW_BYTES

    def _send_batch(self, batch: Sequence[LogEntry]) -> bool:
        """Send the entries after the cursor; ``False`` when the tunnel takes nothing more."""
        if not self._send(batch):
            return False
        self._cursor = batch[-1].position
        size = sum(entry.size for entry in batch)
        before = self._cursor_totals
        self._cursor_totals = Totals(before.entries + len(batch), before.bytes + size)
        self._sent.append((self._cursor, self._cursor_totals))
        return True

    def _send(self, entries: Sequence[LogEntry]) -> bool:
        append = ReplicaAppend(self._epoch, self._session, tuple(entries), self._taken)
        return self._mesh.send(self._peer, append)

    async def _ask(self, message: msgspec.Struct, reply: type[Rep]) -> Rep:
        return await self._mesh.request(self._peer, message, reply, within=REQUEST_S)

    # -- disks that went back in time -------------------------------------------------------------------

    def _remember(self, common: LogPosition) -> None:
        """What the peer once said to have on its disk it must still have."""
        if common < self._remembered:
            had, has = self._remembered, common
            text = f"it had synced entry {had.epoch}.{had.seq}, and now follows ours to {has.epoch}.{has.seq}"
            self._watcher.went_back(self._peer, self._peer, text)

    async def _examine(self, cuts: Iterable[Cut]) -> None:
        """Entries of an epoch of ours were durable here before anybody got them; what the peer had to cut
        off of them and we do not have, our own disk forgot."""
        for cut in cuts:
            if cut.machine == self._ledger.machine and not await self._ledger.log.contains(cut.mark):
                text = f"{self._peer} has entry {cut.mark.epoch}.{cut.mark.seq} that was made here"
                self._watcher.went_back(self._ledger.machine, self._peer, text)
                return
