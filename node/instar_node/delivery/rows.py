"""What is known of one message, as a join-semilattice: the pure heart of "never dropped, never doubled".

A row only grows. Every log entry carries a (partial) row and applying it means ``join`` with what is known,
so entries may be applied twice or in any order, and knowledge of two machines that lost sight of each other
merges without a decision: the higher state wins, *committed* over all, and two different reservations of one
message stay visible as ``undecided``. Each field is a maximum or a union, hence ``join`` is commutative,
associative and idempotent (Shapiro et al. 2011, state-based CRDTs).
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import msgspec

from instar_node.contracts import Number, Placement


class Rank(IntEnum):
    """The state order. ``UNKNOWN`` is a marker that came without its message."""

    UNKNOWN = 0
    RECEIVED = 1
    PROCESSING = 2
    WAITING = 3
    """A person will answer."""
    ABANDONED = 4
    """The agent failed for good. Below ``RESERVED``: an answer that exists elsewhere beats giving up."""
    RESERVED = 5
    UNDECIDED = 6
    """Nobody can say whether it was sent; a person decides."""
    REJECTED = 7
    """A person decided not to send it."""
    COMMITTED = 8
    CURSOR_ADVANCED = 9


OPEN = frozenset({Rank.RECEIVED, Rank.PROCESSING, Rank.WAITING, Rank.RESERVED, Rank.UNDECIDED})
"""States in which somebody still has something to do."""


class Status(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The state, when it was entered (log position) and why."""

    rank: Rank = Rank.UNKNOWN
    epoch: int = 0
    seq: int = 0
    reason: str = ""


class Origin(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The message itself. ``(epoch, seq)`` is its line number in the topic and the epoch that gave it; a
    holder that takes up a message from an older epoch numbers it anew, and the newer number wins."""

    epoch: int
    seq: Number
    topic: str
    text: str
    sender: str
    channel: str
    at: str
    position: str
    machine: str


class Grant(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Leave to answer one message. A result that carries another grant than the newest is refused."""

    epoch: int = 0
    n: int = 0


class Reservation(msgspec.Struct, frozen=True, order=True, array_like=True):
    """All parts of one answer, fixed before the first is sent. ``machine`` is where it was made."""

    digest: str
    epoch: int
    machine: str
    replies: tuple[str, ...]


class Commit(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The reservation that was delivered; ``seq`` is the line number of its first part."""

    epoch: int
    seq: Number
    digest: str
    at: str
    machine: str


class MessageRow(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one message; as the body of a log entry, the part of it that the entry adds."""

    key: str
    status: Status = Status()
    origin: Origin | None = None
    grant: Grant = Grant()
    reservations: tuple[Reservation, ...] = ()
    delivered: tuple[str, ...] = ()
    """``part:channel``, or ``part.piece:channel`` from the second piece on: what a channel that keeps no keys
    confirmed before the whole was committed; sorted."""
    commit: Commit | None = None
    void: tuple[tuple[str, int], ...] = ()
    """Answers by digest and the epoch up to which a reservation of it was surely never sent; sorted."""
    unheard: tuple[str, ...] = ()
    """Machines that may have answered it, and had not reported when we took it up; sorted. While one of them
    is still missing, nobody can say whether an answer was sent before ours."""
    compacted: bool = False
    """Whether the texts were dropped for their age; key, end state, epochs and digests stay for ever."""

    @property
    def rank(self) -> Rank:
        """The state; two different reservations of which neither was committed are undecided."""
        rank = self.status.rank
        if rank is Rank.RESERVED and len(self.reservations) > 1 and len(self.live) > 1:
            return Rank.UNDECIDED
        return rank

    @property
    def state(self) -> str:
        """The state as the API names it."""
        return self.rank.name.lower()

    @property
    def open(self) -> bool:
        """Whether something is still to be done. A marker without its message has nothing to do; and only
        what was settled is compacted: the entry that says so is on its way."""
        return self.origin is not None and self.rank in OPEN and not self.compacted

    @property
    def live(self) -> tuple[Reservation, ...]:
        """Reservations that may have been sent."""
        if not self.void:
            return self.reservations
        return tuple(
            r for r in self.reservations if not any(v[0] == r.digest and v[1] >= r.epoch for v in self.void)
        )

    @property
    def reservation(self) -> Reservation | None:
        """The answer: the committed one, else the live one of the highest epoch."""
        if self.commit is not None:
            for reservation in self.reservations:
                if reservation.digest == self.commit.digest:
                    return reservation
        if len(self.reservations) == 1 and not self.void:
            return self.reservations[0]
        return max(self.live, key=lambda r: (r.epoch, r.digest), default=None)

    @property
    def reason(self) -> str:
        """Why it is in this state; empty where that goes without saying."""
        if self.rank is not self.status.rank:
            return "two machines prepared different answers"
        return self.status.reason


def join(a: MessageRow, b: MessageRow) -> MessageRow:
    """What is known when both are known. Both rows must have the same key."""
    joined = MessageRow(
        a.key,
        max(a.status, b.status),
        a.origin if b.origin is None else b.origin if a.origin is None else max(a.origin, b.origin),
        max(a.grant, b.grant),
        _union(a.reservations, b.reservations),
        a.delivered if not b.delivered else tuple(sorted({*a.delivered, *b.delivered})),
        a.commit if b.commit is None else b.commit if a.commit is None else max(a.commit, b.commit),
        a.void if not b.void else tuple(sorted({*a.void, *b.void})),
        a.unheard if not b.unheard else tuple(sorted({*a.unheard, *b.unheard})),
    )
    return without_text(joined) if a.compacted or b.compacted else joined


def without_text(row: MessageRow) -> MessageRow:
    """The row as compaction leaves it: what was said is gone, that it was said and answered is not."""
    replace = msgspec.structs.replace
    return replace(
        row,
        origin=None if row.origin is None else replace(row.origin, text="", sender=""),
        reservations=tuple(replace(r, replies=("",) * len(r.replies)) for r in row.reservations),
        compacted=True,
    )


def line_order(row: MessageRow) -> tuple[int, int]:
    """The order in which messages are answered within a topic."""
    return (row.origin.epoch, row.origin.seq) if row.origin is not None else (0, 0)


def _union(a: tuple[Reservation, ...], b: tuple[Reservation, ...]) -> tuple[Reservation, ...]:
    """Distinct answers, sorted; of equal ones the newest reservation."""
    if not b or a == b:
        return a
    newest: dict[str, Reservation] = {}
    for reservation in (*a, *b):
        known = newest.get(reservation.digest)
        newest[reservation.digest] = reservation if known is None else max(known, reservation)
    return tuple(newest[digest] for digest in sorted(newest))


def newer_placement(a: Placement, b: Placement) -> Placement:
    """The placement of the higher ownership epoch (ties, which no honest holder makes, by content)."""
    return max(a, b, key=lambda p: (p.epoch, p.n, p.reason, p.owner or "", p.pinned_to or ""))


def digest_of(replies: tuple[str, ...]) -> str:
    """Names an answer by its content, so that equal answers of two machines are one."""
    return hashlib.sha256(msgspec.msgpack.encode(replies)).hexdigest()[:32]


def dedupe_key(channel: str, topic: str, provider_id: str) -> str:
    """``channel:topic:provider id``, unambiguous: a topic's own colons are written ``%3A``."""
    return f"{channel}:{topic.replace(':', '%3A')}:{provider_id}"


def public_key(key: str) -> str:
    """The key as people gave it: on the local channel the bare id, elsewhere the whole dedupe key."""
    channel, _, provider_id = key.split(":", 2)
    return provider_id if channel == "local" else key


def reply_id(key: str, part: int) -> str:
    """The idempotency key of one part of the answer: the same on every machine, ever."""
    return "r_" + hashlib.sha256(f"{key}\0{part}".encode()).hexdigest()[:32]
