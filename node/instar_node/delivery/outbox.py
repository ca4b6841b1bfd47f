"""``FencedOutbox``: sends each answer once, and only while the lease says so.

The answer is reserved (durable and replicated), the lease is checked, every part goes to every channel, and
the whole is committed. Where our log is all that it goes to, and nobody else follows, both are one entry.
``decide`` and ``after_doubt`` are the rules; the class carries them out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import Literal, NamedTuple

from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Authority, LogPosition
from instar_node.delivery.contract import Channel, Fenced, OutgoingReply, Publish, Refused, Retry, Sent
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.replication import ReplyMarkerTransport
from instar_node.delivery.rows import Grant, MessageRow, Rank, Reservation, public_key, reply_id
from instar_node.errors import InstarError

log = logging.getLogger("instar.delivery")

FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 30.0


class Refusal(Enum):
    """Why an answer may not be sent."""

    ALREADY_REPLIED = "already-replied"
    NO_LEASE = "no-lease"
    STALE_EPOCH = "stale-epoch"


def decide(row: MessageRow, stamped: int, acting: int | None) -> Refusal | None:
    """Whether the reserved answer of ``row``, stamped with an epoch, may be sent now; ``None`` = yes."""
    if row.rank >= Rank.REJECTED:
        return Refusal.ALREADY_REPLIED
    if acting is None:
        return Refusal.NO_LEASE
    if stamped != acting:
        return Refusal.STALE_EPOCH
    return None


class Doubt(NamedTuple):
    """An earlier attempt may have got through. ``was_sent`` is what the channel says; ``waited_s`` how long
    ago that attempt can have been at the latest."""

    deduplicates: bool
    was_sent: bool | None
    waited_s: float
    max_in_flight_s: float
    policy: Literal["hold", "resend"]


def after_doubt(doubt: Doubt) -> Literal["send", "done", "wait", "hold"]:
    """What to do about a part that may already have been sent.

    Sending again is safe where the receiver drops repeats. Else a *yes* of the channel is conclusive, a *no*
    only when nothing can be on its way any more; and where nobody knows, the person's policy decides.
    """
    if doubt.deduplicates:
        return "send"
    if doubt.was_sent is True:
        return "done"
    if doubt.was_sent is False:
        return "send" if doubt.waited_s >= doubt.max_in_flight_s else "wait"
    return "send" if doubt.policy == "resend" else "hold"


class _Piece(NamedTuple):
    """One send: a piece (from 0) of one part of an answer, by one channel."""

    part: int
    number: int
    text: str
    channel: Channel

    @property
    def mark(self) -> str:
        """Names it among what was delivered; a part in one piece is named as the part."""
        place = f"{self.part}.{self.number}" if self.number else str(self.part)
        return f"{place}:{self.channel.name}"


class FencedOutbox:
    """The only way out for answers."""

    def __init__(
        self,
        ledger: MessageProcessingLedger,
        transport: ReplyMarkerTransport,
        authority: Authority,
        channels: tuple[Channel, ...],
        clock: Clock,
        publish: Publish,
        on_fenced: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_fenced`` is called when a receiver knows a higher epoch than ours: re-read the lease."""
        self._ledger = ledger
        self._transport = transport
        self._authority = authority
        self._channels = channels
        self._clock = clock
        self._publish = publish
        self._on_fenced = on_fenced
        self._under_way: dict[str, asyncio.Event] = {}
        self._fenced_in: dict[str, int] = {}
        self.trouble: dict[str, str] = {}
        """By key: why a reserved answer is not out yet."""
        self.refusals: dict[str, int] = {refusal.value: 0 for refusal in Refusal}

    async def answer(self, key: str, grant: Grant, replies: tuple[str, ...], machine: str = "") -> MessageRow:
        """Reserve an answer, made on ``machine`` (empty: here), and deliver it.

        Returns the row as it then is (``committed`` or ``undecided``).

        Raises ``InstarError``: ``stale-grant`` or ``already-replied`` when somebody else answered,
        ``lease-lost`` or ``not-awake`` when this machine no longer may (the next holder goes on from there).
        """
        if self._settled_by_ledger(key):
            return await self._ledger.answer(key, grant, replies, machine)
        row, position = await self._ledger.reserve(key, grant, replies, machine)
        return await self._deliver(key, position, in_doubt=self._ledger.answered_unseen(row))

    async def resume(self, key: str, by_person: bool = False) -> MessageRow:
        """Deliver an answer that was reserved before: by another machine, or by us before a crash.

        ``by_person``: somebody decided that it is to be sent, whatever may have happened before.
        """
        fenced_in = self._fenced_in.get(key)
        if not by_person and fenced_in is not None and fenced_in == self._authority.acting_epoch():
            raise InstarError("fenced", f"a receiver refused the answer to {key} in this epoch", status=503)
        _, position = await self._ledger.take_over(key)
        return await self._deliver(key, position, in_doubt=not by_person, by_person=by_person)

    # -- delivering -------------------------------------------------------------------------------------

    async def _deliver(
        self, key: str, position: LogPosition, in_doubt: bool, by_person: bool = False
    ) -> MessageRow:
        while (earlier := self._under_way.get(key)) is not None:
            await earlier.wait()  # never the same answer twice at a time; what it came to is looked at below
        row = self._ledger.open_message(key)
        reservation = row.reservation if row is not None else None
        if row is None or reservation is None:
            raise InstarError("already-replied", f"the answer to {key} is out")
        if row.rank is Rank.UNDECIDED and not by_person:
            return row
        ended = self._under_way[key] = asyncio.Event()
        try:
            await self._transport.wait_replicated(position)
            pieces = self._pieces(row, reservation)
            for piece in pieces:
                if piece.mark in row.delivered:
                    continue
                held = await self._deliver_piece(row, reservation.epoch, piece, in_doubt)
                if held is not None:
                    return await self._hold(key, f"{piece.channel.name}: {held}")
                if piece is not pieces[-1] and not piece.channel.deduplicates:
                    # The commit says it of the last, and where repeats are dropped nobody needs to know.
                    await self._ledger.delivered(key, piece.mark, reservation.epoch)
            return await self._ledger.commit(key, reservation.digest, reservation.epoch)
        finally:
            del self._under_way[key]
            ended.set()
            if self._ledger.open_message(key) is None:
                self.trouble.pop(key, None)
                self._fenced_in.pop(key, None)

    def _settled_by_ledger(self, key: str) -> bool:
        """Whether an entry of our log is all that becomes of an answer: no channel takes it outside, and no
        other machine has to know of it first."""
        row = self._ledger.open_message(key)
        if row is None or row.origin is None or not self._transport.alone:
            return False
        topic = row.origin.topic
        return all(channel.in_ledger for channel in self._channels if channel.carries(topic))

    def _pieces(self, row: MessageRow, reservation: Reservation) -> list[_Piece]:
        """Every send that the answer takes, in order: part by part, channel by channel."""
        assert row.origin is not None
        channels = [channel for channel in self._channels if channel.carries(row.origin.topic)]
        return [
            _Piece(part, number, text, channel)
            for part, whole in enumerate(reservation.replies)
            for channel in channels
            for number, text in enumerate(channel.pieces(whole))
        ]

    async def _deliver_piece(self, row: MessageRow, epoch: int, piece: _Piece, in_doubt: bool) -> str | None:
        """Bring one piece to one channel; returns why a person must decide, or ``None`` when it is there."""
        channel = piece.channel
        reply = self._outgoing(row, epoch, piece)
        since, backoff = self._clock.now(), FIRST_BACKOFF_S
        while True:
            if in_doubt:
                step = after_doubt(await self._doubt(channel, reply, since))
                if step == "done":
                    return None
                if step == "hold":
                    return "nobody can say whether it was sent"
                if step == "wait":
                    self._note(row.key, f"{channel.name}: waiting until an earlier attempt must have arrived")
                    await self._clock.sleep(max(FIRST_BACKOFF_S, channel.max_in_flight_s / 10))
                    continue
            self._check(row, epoch)
            outcome = await channel.send(reply)
            if isinstance(outcome, Sent):
                return None
            if isinstance(outcome, Refused):
                return outcome.reason
            if isinstance(outcome, Fenced):
                raise self._fenced(row.key, epoch, channel, outcome)
            in_doubt = in_doubt or outcome.maybe_sent
            since = self._clock.now()
            await self._back_off(row.key, channel, outcome, backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_S)

    def _check(self, row: MessageRow, epoch: int) -> None:
        current = self._ledger.open_message(row.key)
        if current is None:  # closed meanwhile: by a person, or by what another machine handed up
            refusal: Refusal | None = Refusal.ALREADY_REPLIED
        else:
            refusal = decide(current, epoch, self._authority.acting_epoch())
        if refusal is None:
            return
        self.refusals[refusal.value] += 1
        self._publish("outbox", f"an answer was not sent: {refusal.value}", key=row.key, reason=refusal.value)
        code = "already-replied" if refusal is Refusal.ALREADY_REPLIED else "lease-lost"
        raise InstarError(code, f"the answer to {row.key} was not sent: {refusal.value}", status=503)

    async def _doubt(self, channel: Channel, reply: OutgoingReply, since: int) -> Doubt:
        was_sent = None if channel.deduplicates else await channel.was_sent(reply)
        waited = (self._clock.now() - since) / MICROS_PER_SECOND
        return Doubt(channel.deduplicates, was_sent, waited, channel.max_in_flight_s, channel.undecided)

    async def _back_off(self, key: str, channel: Channel, outcome: Retry, backoff: float) -> None:
        self._note(key, f"{channel.name}: {outcome.reason}")
        await self._clock.sleep(max(outcome.after_s, backoff))

    async def _hold(self, key: str, reason: str) -> MessageRow:
        row = await self._ledger.hold(key, reason)
        self.trouble.pop(key, None)
        self._publish("outbox", f"an answer needs a decision: {reason}", key=key, reason=reason)
        return row

    def _fenced(self, key: str, epoch: int, channel: Channel, outcome: Fenced) -> InstarError:
        self._fenced_in[key] = epoch
        self._note(key, f"{channel.name}: {outcome.reason}")
        self._on_fenced()
        return InstarError("fenced", f"{channel.name} refused our epoch: {outcome.reason}", status=503)

    def _note(self, key: str, reason: str) -> None:
        if self.trouble.get(key) != reason:
            self.trouble[key] = reason
            self._publish("outbox", f"an answer is not out yet: {reason}", key=key, reason=reason)

    def _outgoing(self, row: MessageRow, epoch: int, piece: _Piece) -> OutgoingReply:
        assert row.origin is not None
        identity = reply_id(row.key, piece.part)
        return OutgoingReply(
            f"{identity}.{piece.number}" if piece.number else identity,
            public_key(row.key),
            row.origin.topic,
            piece.text,
            epoch,
            self._authority.me,
            piece.part,
            first=piece.part == 0 and piece.number == 0,
        )
