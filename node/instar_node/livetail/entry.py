"""Lines of conversation, their places in the log, and what two copies compare. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.contracts import LogPosition, Number

START = LogPosition(0, 0)
"""The position before the first entry."""

Name = Annotated[str, Meta(max_length=256)]


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line of one topic's conversation, already redacted.

    ``topic_seq`` orders lines within a topic; with topic, role and key it identifies the line everywhere.
    ``epoch`` is the epoch in which it was said.
    """

    topic: Name
    topic_seq: Number
    role: Literal["user", "agent"]
    text: str
    at: Name
    key: Name
    reply_to: Name | None
    machine_id: Name
    epoch: Number


LineId = tuple[str, str, str, int]
"""What identifies a line everywhere: topic, role, key and ``topic_seq``."""


def identity(line: Line) -> LineId:
    """What identifies a line everywhere."""
    return line.topic, line.role, line.key, line.topic_seq


def line_size(line: Line) -> int:
    """Bytes of a line, as the cap and the lag count them."""
    return len(line.text.encode("utf-8", "surrogatepass"))


class TailEntry(msgspec.Struct, frozen=True, array_like=True):
    """A line at its place in the log. ``seq`` runs on through all topics and epochs."""

    position: LogPosition
    line: Line


class Batch(msgspec.Struct, frozen=True):
    """Entries that follow ``after``; with them a copy stands at ``through``. Numbers may be missing in
    between: those entries were dropped for space."""

    after: LogPosition
    entries: tuple[TailEntry, ...]
    through: LogPosition


class TopicDigest(msgspec.Struct, frozen=True, array_like=True):
    """What a copy holds of one topic: lines ``first`` to ``last`` (``topic_seq``) and their digest."""

    topic: Name
    first: int
    last: int
    count: int
    digest: bytes


class TailManifest(msgspec.Struct, frozen=True):
    """What a copy holds in all: compared in a handoff before the holder goes quiet."""

    position: LogPosition
    topics: tuple[TopicDigest, ...]


DIGEST_BYTES = 32
_MODULUS = 1 << (8 * DIGEST_BYTES)
EMPTY_DIGEST = bytes(DIGEST_BYTES)
_encode = msgspec.msgpack.Encoder().encode


def line_digest(line: Line) -> bytes:
    """SHA-256 over every field of the line, unambiguously encoded."""
    return hashlib.sha256(_encode(line)).digest()


def set_digest(total: int) -> bytes:
    """The digest of a set of lines, from the sum of their digests read as numbers (big-endian): that sum
    modulo 2^256 (AdHash, Bellare & Micciancio 1997).

    Order does not matter and a line can be taken out again, so a topic's digest is kept up to date at a
    constant cost. It finds copies that differ by mistake; it is no defence against a member that forges.
    """
    return (total % _MODULUS).to_bytes(DIGEST_BYTES)


def end_of_log(ends: Mapping[int, int]) -> LogPosition:
    """Where a log ends that knows these epochs: epoch -> last ``seq`` in it."""
    return LogPosition(*max(ends.items(), default=(0, 0)))


def common_point(mine: Mapping[int, int], theirs: Mapping[int, int]) -> LogPosition:
    """The last position two logs share, from what each knows of epochs: epoch -> last ``seq`` in it.

    Each epoch has one writer, which went on from its own end; so two logs that both hold entries of an epoch
    are equal up to the shorter one's last entry of the newest such epoch (Raft's log matching property, with
    the epoch table of Kafka's KIP-101).
    """
    shared = mine.keys() & theirs.keys()
    if not shared:
        return START
    epoch = max(shared)
    return LogPosition(epoch, min(mine[epoch], theirs[epoch]))
