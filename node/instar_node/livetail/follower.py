"""A standby's side of the live tail: find the holder, offer what it may lack, follow its log."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from instar_node.contracts import Authority, LogPosition, Mesh
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.entry import START, Batch
from instar_node.livetail.messages import TailAck, TailHello, TailOffer, TailPush, TailTaken, TailWelcome

log = logging.getLogger("instar.livetail")

ASK_WITHIN_S = 5.0
OFFER_BYTES = 256 * 1024


class Follower:
    """Keeps this machine's copy close behind the holder's. Believes only the holder of the highest epoch
    known, and only in that epoch."""

    def __init__(
        self,
        buffer: LiveTailBuffer,
        mesh: Mesh,
        authority: Authority,
        events: EventHub,
        meet_again: Callable[[], None],
    ) -> None:
        self._buffer = buffer
        self._mesh = mesh
        self._authority = authority
        self._events = events
        self._meet_again = meet_again
        self._inbox: list[TailPush] = []
        self._arrived = asyncio.Event()
        self.counters: Counter[str] = Counter()
        """``pushes_disbelieved``: from a machine that is not the holder; ``gaps``: said hello again."""

    def push_received(self, sender: str, push: TailPush) -> None:
        """A push came in; it is written by ``work``."""
        if not self._believed(sender, push.epoch):
            self.counters["pushes_disbelieved"] += 1
            log.warning("ignored a tail push of %s for epoch %d: not the holder", sender, push.epoch)
            return
        self._inbox.append(push)
        self._arrived.set()

    async def meet(self, holder: str, epoch: int) -> None:
        """Agree with the holder where to go on; when this returns it feeds us. Raises ``PeerError``."""
        while True:
            lineage = tuple(sorted(self._buffer.lineage.items()))
            hello = TailHello(epoch, lineage)
            welcome = await self._mesh.request(holder, hello, TailWelcome, within=ASK_WITHIN_S)
            self._buffer.keep_at_least(welcome.keep_bytes)
            if welcome.common == self._buffer.head:
                return
            await self._offer(holder, epoch, welcome.common)
            await self._buffer.truncate(welcome.common)

    async def start_over(self) -> None:
        """Forget this copy, to be filled anew by the holder. The next ``meet`` begins at the start."""
        await self._buffer.truncate(START)

    async def work(self) -> None:
        """Write pushes as they come and acknowledge them. Runs until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            pushes, self._inbox = self._inbox, []
            try:
                await self._write(pushes)
            except InstarError as error:  # the holder sends again when no acknowledgement comes
                log.error("the live tail could not be written: %s", error)

    async def _write(self, pushes: list[TailPush]) -> None:
        verdicts = await self._buffer.apply([Batch(p.after, p.entries, p.through) for p in pushes])
        if "gap" in verdicts:
            self.counters["gaps"] += 1
            self._meet_again()
        last = pushes[-1]
        holder = self._authority.holder
        if holder is not None and self._believed(holder, last.epoch):
            self._mesh.send(holder, TailAck(last.epoch, self._buffer.head))
        entries = [entry for push in pushes for entry in push.entries]
        if "applied" in verdicts and entries:
            topics = sorted({entry.line.topic for entry in entries})
            self._events.publish(
                "livetail", "", entries=len(entries), topics=topics, head_seq=self._buffer.head.seq
            )

    async def _offer(self, holder: str, epoch: int, common: LogPosition) -> None:
        """Send up every line after the common point; they are durable at the holder when this returns."""
        at, end, count = common, self._buffer.head, 0
        while at < end:
            batch = await self._buffer.batch(at, OFFER_BYTES)
            lines = tuple(entry.line for entry in batch.entries)
            if lines:
                offer = TailOffer(epoch, lines)
                await self._mesh.request(holder, offer, TailTaken, within=ASK_WITHIN_S)
            at, count = batch.through, count + len(lines)
        if count:
            self._events.publish("livetail", f"offered {count} lines of an earlier epoch to the holder")

    def _believed(self, sender: str, epoch: int) -> bool:
        return sender == self._authority.holder and epoch == self._authority.epoch
