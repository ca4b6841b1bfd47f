"""``LiveTailSource``: the holder's side of the live tail. Takes lines in, knows how far each standby is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

from instar_node.clock import MICROS_PER_MS, Clock
from instar_node.contracts import Authority, LogPosition
from instar_node.errors import InstarError
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.entry import START, Batch, Line, common_point, end_of_log
from instar_node.livetail.feed import PeerFeed
from instar_node.livetail.messages import TailHello, TailOffer, TailWelcome
from instar_node.livetail.redaction import Redactor

BATCH_BYTES = 64 * 1024
TOPICS_TOLD = 20
"""Topics named one by one in what is told of a copy's lag."""


class TopicLag(msgspec.Struct, frozen=True):
    """How much of one topic a copy lacks."""

    topic: str
    entries: int
    bytes: int
    ms: int


class PeerLag(msgspec.Struct, frozen=True):
    """How far one standby's copy is behind the holder's.

    ``ms`` is the age of the oldest line it lacks; ``last_ack_ms`` the time since its last acknowledgement,
    ``None`` before the first.
    """

    machine_id: str
    entries: int
    bytes: int
    ms: int
    acked_seq: int
    head_seq: int
    last_ack_ms: int | None
    topics: tuple[TopicLag, ...] = ()
    """The topics that are behind, the most so first; at most ``TOPICS_TOLD``."""


class LiveTailSource:
    """Implements delivery's ``ConversationSink``: redacts lines and puts them into the log of this epoch."""

    def __init__(
        self, buffer: LiveTailBuffer, authority: Authority, clock: Clock, redactor: Redactor
    ) -> None:
        self._buffer = buffer
        self._authority = authority
        self._clock = clock
        self._redactor = redactor
        self._epoch = 0
        self._feeds: dict[str, PeerFeed] = {}

    def append(
        self,
        *,
        kind: Literal["user", "agent"],
        topic: str,
        text: str,
        at: str,
        key: str,
        reply_to: str | None,
        epoch: int,
        machine_id: str,
        seq: int,
    ) -> None:
        """Take one durable line of conversation, in order; repeating one is harmless. Never blocks.

        A line that is finished just after the lease was lost goes into the log of the epoch it was held in,
        and is offered to the next holder from there.
        """
        acting = self._authority.acting_epoch()
        if acting is not None:
            self._enter(acting)
        if self._epoch == 0:
            raise InstarError("not-awake", "a machine that was never awake has no conversation to add")
        line = Line(topic, seq, kind, self._redactor.redact(text), at, key, reply_to, machine_id, epoch)
        self._buffer.stage(self._epoch, line)

    def welcome(self, peer: str, hello: TailHello) -> TailWelcome:
        """Find what we share with a standby; feed it from there if it has nothing beyond.

        Raises ``InstarError("not-source")`` unless this machine is awake in the epoch of the hello.
        """
        self._require(hello.epoch)
        common = common_point(self._buffer.lineage, dict(hello.lineage))
        if end_of_log(dict(hello.lineage)) == common:
            self._feeds.setdefault(peer, PeerFeed()).begin(common, self._clock.now())
        return TailWelcome(common, self._buffer.cap_bytes)

    async def take_offer(self, offer: TailOffer) -> None:
        """Add a standby's lines of earlier epochs, those we lack; durable when this returns."""
        self._require(offer.epoch)
        for line in offer.lines:
            self._buffer.stage(
                offer.epoch, msgspec.structs.replace(line, text=self._redactor.redact(line.text))
            )
        await self._buffer.settled()

    def acknowledged(self, peer: str, position: LogPosition) -> None:
        """A standby's copy is durable up to ``position``."""
        feed = self._feeds.get(peer)
        if feed is not None:
            feed.acknowledged(position, self._clock.now())

    def acked(self, peer: str) -> LogPosition:
        """How far this standby's copy is durable, as far as it has told this process."""
        feed = self._feeds.get(peer)
        return feed.acked if feed is not None else START

    def stop_feeding(self, peer: str | None = None) -> None:
        """This standby's tunnel is down; without one, we are not (or in another epoch) the source."""
        for name, feed in self._feeds.items():
            if peer in (None, name):
                feed.end()

    def fed(self) -> list[str]:
        """Standbys that take pushes now."""
        return [peer for peer, feed in self._feeds.items() if feed.live]

    async def next_batch(self, peer: str) -> Batch | None:
        """What to push to this standby now; ``None`` when it has all, or enough under way."""
        feed = self._feeds[peer]
        feed.overdue(self._clock.now())
        room = feed.room()
        if room == 0 or feed.sent >= self._buffer.head:
            return None
        start = feed.sent
        batch = await self._buffer.batch(start, min(room, BATCH_BYTES))
        return batch if feed.live and feed.sent == start else None

    def pushed(self, peer: str, batch: Batch) -> None:
        """The batch is on its way to this standby."""
        size = sum(len(entry.line.text) for entry in batch.entries)
        self._feeds[peer].pushed(batch.through, size, self._clock.now())

    async def lag(self, peers: Iterable[str]) -> list[PeerLag]:
        """How far behind each of these machines is, as far as it has acknowledged to this process."""
        return [await self._lag_of(peer, self._feeds.get(peer) or PeerFeed()) for peer in peers]

    async def _lag_of(self, peer: str, feed: PeerFeed) -> PeerLag:
        now, wall, acked, head = self._clock.now(), self._clock.wall(), feed.acked, self._buffer.head
        last_ack_ms = None if feed.last_ack is None else (now - feed.last_ack) // MICROS_PER_MS
        topics = [
            TopicLag(topic, entries, size, _age_ms(since, wall))
            for topic, entries, size, since in await self._buffer.behind(acked)
        ]
        return PeerLag(
            peer,
            entries=sum(topic.entries for topic in topics),
            bytes=sum(topic.bytes for topic in topics),
            ms=max((topic.ms for topic in topics), default=0),
            acked_seq=acked.seq,
            head_seq=head.seq,
            last_ack_ms=last_ack_ms,
            topics=tuple(topics[:TOPICS_TOLD]),
        )

    def _require(self, epoch: int) -> None:
        acting = self._authority.acting_epoch()
        if acting is None or acting != epoch:
            raise InstarError("not-source", f"this machine is not awake in epoch {epoch}")
        self._enter(epoch)

    def _enter(self, epoch: int) -> None:
        """In a new epoch every standby says hello anew; until then it is not fed."""
        if epoch != self._epoch:
            self._epoch = epoch
            self.stop_feeding()


def _age_ms(since: str, wall: float) -> int:
    """How long before ``wall`` (unix seconds of this machine) something was said, by the clock it bears."""
    return max(int((wall - datetime.fromisoformat(since).timestamp()) * 1_000), 0)
