"""What the live tail says between machines."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.contracts import LogPosition
from instar_node.livetail.entry import Line, TailEntry

MAX_BATCH = 1_024
"""Entries in one message, as a bound on what a peer can make us decode."""


class TailHello(msgspec.Struct, frozen=True, tag="tail.hello"):
    """A standby to the holder: this is how far my copy goes (pairs of epoch and last seq); feed me."""

    epoch: int
    lineage: Annotated[tuple[tuple[int, int], ...], Meta(max_length=MAX_BATCH)]


class TailWelcome(msgspec.Struct, frozen=True, tag="tail.welcome"):
    """How much of it we share. If that is all of the standby's log, the feed has begun; otherwise it first
    offers what it has beyond, forgets it and says hello again."""

    common: LogPosition
    keep_bytes: int


class TailOffer(msgspec.Struct, frozen=True, tag="tail.offer"):
    """A standby to the holder: lines of earlier epochs that you may not have."""

    epoch: int
    lines: Annotated[tuple[Line, ...], Meta(max_length=MAX_BATCH)]


class TailTaken(msgspec.Struct, frozen=True, tag="tail.taken"):
    """The offered lines are durable at the holder."""


class TailPush(msgspec.Struct, frozen=True, tag="tail.push"):
    """The holder to a standby: entries that follow ``after``; with them you stand at ``through``."""

    epoch: int
    after: LogPosition
    entries: Annotated[tuple[TailEntry, ...], Meta(max_length=MAX_BATCH)]
    through: LogPosition


class TailAck(msgspec.Struct, frozen=True, tag="tail.ack"):
    """A standby to the holder: durable here up to ``position``. Cumulative."""

    epoch: int
    position: LogPosition
