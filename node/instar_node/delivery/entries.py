"""Entries of the replicated log and the running hash that ties each to all before it."""

from __future__ import annotations

import hashlib
import struct

import msgspec

from instar_node.contracts import LogPosition, Placement
from instar_node.delivery.rows import MessageRow, without_text
from instar_node.errors import InstarError

OPEN = "open"
REPORTED = "reported"
MISSING = "missing"
PLACEMENT = "placement"
MESSAGE_KINDS = frozenset(
    {
        "received",
        "processing",
        "waiting",
        "abandoned",
        "reserved",
        "delivered",
        "undecided",
        "rejected",
        "committed",
        "cursor_advanced",
        "joined",
    }
)
"""Kinds whose body is a (partial) message row; the name only says which step it was."""


class Mark(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A position of the log with the running hash there: equal marks mean equal logs up to them."""

    epoch: int
    seq: int
    hash: bytes

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.epoch, self.seq)


GENESIS = Mark(0, 0, b"")
"""Before the first entry."""


class LogEntry(msgspec.Struct, frozen=True, array_like=True):
    """One entry; ``seq`` restarts at 1 in each epoch, where the first entry is of kind ``open``."""

    epoch: int
    seq: int
    kind: str
    body: bytes
    hash: bytes
    digest: bytes | None = None
    """SHA-256 of the body as it was written, once compaction has taken the text out of it."""

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch, self.seq, self.hash)

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.epoch, self.seq)

    @property
    def size(self) -> int:
        """Bytes that this entry counts for in lag and batches (fixed fields counted as 64)."""
        return len(self.body) + 64


class Opening(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``open``: who begins the epoch, after what, and whose older rows are still missing."""

    prev: Mark
    machine: str
    incomplete: tuple[str, ...]


class Reported(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``reported``: a machine listed as incomplete has handed up its rows."""

    machine: str


class Missing(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``missing``: machines whose older rows are missing, as was found after the epoch began."""

    machines: tuple[str, ...]


class Cut(msgspec.Struct, frozen=True, array_like=True):
    """Where a log was cut off: the last entry cut of one epoch, and the machine that had opened the epoch."""

    machine: str
    mark: Mark


Body = MessageRow | Placement | Opening | Reported | Missing

_encode = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(MessageRow).decode
_decode_placement = msgspec.msgpack.Decoder(Placement).decode
_decode_opening = msgspec.msgpack.Decoder(Opening).decode
_decode_reported = msgspec.msgpack.Decoder(Reported).decode
_decode_missing = msgspec.msgpack.Decoder(Missing).decode


def make_entry(prev: Mark, epoch: int, kind: str, body: Body) -> LogEntry:
    """The entry that follows ``prev`` in ``epoch``."""
    seq = prev.seq + 1 if prev.epoch == epoch else 1
    encoded = _encode(body)
    return LogEntry(epoch, seq, kind, encoded, _hash(prev, epoch, seq, kind, _sha256(encoded)))


def compacted(entry: LogEntry, body: MessageRow) -> LogEntry:
    """The same entry with the texts of its body dropped; its place in the running hash stays proven."""
    digest = entry.digest or _sha256(entry.body)
    return LogEntry(entry.epoch, entry.seq, entry.kind, _encode(without_text(body)), entry.hash, digest)


def decode_body(entry: LogEntry) -> Body:
    """The typed body. Raises ``InstarError("log-damaged")`` for an unknown kind or malformed bytes."""
    try:
        if entry.kind in MESSAGE_KINDS:
            return _decode_row(entry.body)
        if entry.kind == PLACEMENT:
            return _decode_placement(entry.body)
        if entry.kind == OPEN:
            return _decode_opening(entry.body)
        if entry.kind == REPORTED:
            return _decode_reported(entry.body)
        if entry.kind == MISSING:
            return _decode_missing(entry.body)
    except msgspec.DecodeError as error:
        raise _damaged(entry, str(error)) from error
    raise _damaged(entry, f"the kind {entry.kind!r} is not known to this version")


def decode_message(entry: LogEntry) -> MessageRow | None:
    """What an entry says of its message; ``None`` for one of another kind. Raises as ``decode_body``."""
    if entry.kind not in MESSAGE_KINDS:
        return None
    body = decode_body(entry)
    assert isinstance(body, MessageRow)
    return body


def check_follows(prev: Mark, entry: LogEntry) -> None:
    """Refuse an entry that is not the direct successor of ``prev``.

    Raises ``InstarError("log-gap")`` for a wrong place, ``log-damaged`` for a wrong hash.
    """
    same_epoch = entry.epoch == prev.epoch and entry.seq == prev.seq + 1
    new_epoch = entry.epoch > prev.epoch and entry.seq == 1 and entry.kind == OPEN
    if not (same_epoch or new_epoch):
        raise InstarError(
            "log-gap", f"entry {entry.epoch}.{entry.seq} does not follow {prev.epoch}.{prev.seq}"
        )
    digest = entry.digest or _sha256(entry.body)
    if entry.hash != _hash(prev, entry.epoch, entry.seq, entry.kind, digest):
        raise _damaged(entry, "its hash does not match the log before it")


def _hash(prev: Mark, epoch: int, seq: int, kind: str, digest: bytes) -> bytes:
    # Every field has its length fixed or written, so that no two different logs hash the same bytes.
    head = prev.hash + struct.pack(">QQB", epoch, seq, len(kind)) + kind.encode()
    return _sha256(head + digest)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _damaged(entry: LogEntry, why: str) -> InstarError:
    return InstarError(
        "log-damaged", f"log entry {entry.epoch}.{entry.seq} ({entry.kind}): {why}", status=500
    )
