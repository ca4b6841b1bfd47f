"""What holder and standby say to each other about the log.

``epoch`` is the holder's; ``session`` tells one stream from the next over the same tunnel.
"""

from __future__ import annotations

import msgspec

from instar_node.contracts import LogPosition, Placement
from instar_node.delivery.entries import Cut, LogEntry, Mark
from instar_node.delivery.rows import MessageRow
from instar_node.delivery.transaction import OrphanId

BATCH_BYTES = 256 * 1024
"""Entries sent in one message; a single larger entry goes alone."""


class ReplicaBegin(msgspec.Struct, frozen=True, tag="replica.begin"):
    """Holder: where does your log stand? ``marks`` are the ends of our epochs."""

    epoch: int
    session: int
    marks: tuple[Mark, ...]


class ReplicaMarks(msgspec.Struct, frozen=True, tag="replica.marks"):
    """Standby: the ends of my epochs, and my marks where yours are."""

    marks: tuple[Mark, ...]


class ReplicaFollow(msgspec.Struct, frozen=True, tag="replica.follow"):
    """Holder: our logs are equal up to ``common``; cut off what you have after it and hand it up."""

    epoch: int
    session: int
    common: Mark


class ReplicaReady(msgspec.Struct, frozen=True, tag="replica.ready"):
    """Standby: done, durably. ``cuts`` are the ends of all that was cut off here and not yet taken up."""

    cut: int
    cuts: tuple[Cut, ...]


class ReplicaOffer(msgspec.Struct, frozen=True, tag="replica.offer"):
    """Holder: the next page of what was cut off, after this row."""

    epoch: int
    session: int
    after: OrphanId


class ReplicaRows(msgspec.Struct, frozen=True, tag="replica.rows"):
    """Standby: rows that only my log had. ``next`` asks for the following page."""

    rows: tuple[MessageRow, ...]
    placements: tuple[Placement, ...]
    next: OrphanId | None


class ReplicaAppend(msgspec.Struct, frozen=True, tag="replica.append"):
    """Holder: the next entries. Once your log has reached ``taken``, all you handed up is in it."""

    epoch: int
    session: int
    entries: tuple[LogEntry, ...]
    taken: LogPosition


class ReplicaAck(msgspec.Struct, frozen=True, tag="replica.ack"):
    """Standby: everything up to here is synced on my disk."""

    epoch: int
    session: int
    position: LogPosition


class ReplicaBroken(msgspec.Struct, frozen=True, tag="replica.broken"):
    """Standby: the stream cannot go on like this; begin again."""

    session: int
    reason: str


class ReplicaWanted(msgspec.Struct, frozen=True, tag="replica.wanted"):
    """Standby: I know of your epoch now, begin."""

    epoch: int
