"""The steps of a message, each as plain code on one transaction: check, then append the entry that says so.

Every function raises ``InstarError`` before it changes anything, or appends; so a refused step leaves nothing
behind. ``epoch`` is always the epoch this machine acts in; whether it may is checked by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from instar_node.contracts import LogPosition, Placement
from instar_node.delivery.entries import Missing, Opening, Reported
from instar_node.delivery.rows import (
    Commit,
    Grant,
    MessageRow,
    Origin,
    Rank,
    Reservation,
    Status,
    digest_of,
    join,
    line_order,
    newer_placement,
)
from instar_node.delivery.transaction import Transaction
from instar_node.errors import InstarError


class Incoming(msgspec.Struct, frozen=True):
    """A message about to be recorded."""

    key: str
    topic: str
    text: str
    sender: str
    channel: str
    at: str
    position: str
    machine: str


class Recorded(msgspec.Struct, frozen=True):
    """A recorded message. It may be acknowledged once ``position`` is replicated."""

    row: MessageRow
    position: LogPosition
    duplicate: bool


def record(tx: Transaction, epoch: int, new: Incoming) -> Recorded:
    """Record a message, or find it recorded. Raises ``key-reused`` when the key carried another text."""
    known = tx.row(new.key)
    if known is not None and known.origin is not None:
        if known.origin.text != new.text and not known.compacted:
            raise InstarError(
                "key-reused",
                f"key {new.key} was used before with another text",
                "use a new key for a new message",
            )
        return Recorded(known, tx.head.position, duplicate=True)
    origin = Origin(
        epoch,
        tx.next_line(new.topic),
        new.topic,
        new.text,
        new.sender,
        new.channel,
        new.at,
        new.position,
        new.machine,
    )
    status = _status(tx, epoch, Rank.RECEIVED)
    row = _append(tx, epoch, "received", MessageRow(new.key, status, origin))
    return Recorded(row, tx.head.position, duplicate=False)


def begin(tx: Transaction, epoch: int, key: str, grant: Grant) -> MessageRow:
    """Grant the answering of a message; every older grant of it ends."""
    row = _unanswered(tx, key)
    if grant <= row.grant:
        raise stale_grant(key)
    part = MessageRow(key, _status(tx, epoch, Rank.PROCESSING), grant=grant)
    return _append(tx, epoch, "processing", part)


def wait_for_person(tx: Transaction, epoch: int, key: str, grant: Grant) -> MessageRow:
    """A person will answer."""
    _granted(tx, epoch, key, grant)
    return _append(tx, epoch, "waiting", MessageRow(key, _status(tx, epoch, Rank.WAITING)))


def abandon(tx: Transaction, epoch: int, key: str, grant: Grant, reason: str) -> MessageRow:
    """The agent failed for good."""
    _granted(tx, epoch, key, grant)
    return _append(tx, epoch, "abandoned", MessageRow(key, _status(tx, epoch, Rank.ABANDONED, reason)))


def reserve(
    tx: Transaction, epoch: int, key: str, grant: Grant, replies: tuple[str, ...], machine: str
) -> MessageRow:
    """Fix the whole answer before any of it is sent. From here on the agent is never run again for it.

    Its grant is entered with it, in case the log does not have it: the answer was there before the grant was
    written, or the disk was full then.
    """
    _may_answer(tx, epoch, key, grant)
    reservation = Reservation(digest_of(replies), epoch, machine, replies)
    status = _status(tx, epoch, Rank.RESERVED)
    return _append(tx, epoch, "reserved", MessageRow(key, status, grant=grant, reservations=(reservation,)))


def answer(
    tx: Transaction,
    epoch: int,
    key: str,
    grant: Grant,
    replies: tuple[str, ...],
    machine: str,
    at: str,
    by: str,
) -> MessageRow:
    """``reserve`` and ``commit`` in one, where the entry itself is all that becomes of the answer."""
    row = _may_answer(tx, epoch, key, grant)
    assert row.origin is not None
    reservation = Reservation(digest_of(replies), epoch, machine, replies)
    done = Commit(epoch, tx.next_line(row.origin.topic), reservation.digest, at, by)
    status = _status(tx, epoch, Rank.COMMITTED)
    part = MessageRow(key, status, grant=grant, reservations=(reservation,), commit=done)
    return _append(tx, epoch, "committed", part)


def take_over(tx: Transaction, epoch: int, key: str) -> MessageRow:
    """Put an answer that an older epoch reserved under ours, unchanged."""
    row = _known(tx, key)
    if row.rank not in (Rank.RESERVED, Rank.UNDECIDED) or row.reservation is None:
        raise _already(row)
    if row.reservation.epoch >= epoch:
        return row
    ours = msgspec.structs.replace(row.reservation, epoch=epoch)
    return _append(tx, epoch, "reserved", MessageRow(key, reservations=(ours,)))


def delivered(tx: Transaction, epoch: int, key: str, mark: str) -> MessageRow:
    """A channel that keeps no keys confirmed one piece of an answer that has more to deliver."""
    return _append(tx, epoch, "delivered", MessageRow(key, delivered=(mark,)))


def hold(tx: Transaction, epoch: int, key: str, reason: str) -> MessageRow:
    """Nobody can say whether it was sent, or the receiver will not take it: a person decides."""
    row = _known(tx, key)
    if row.rank not in (Rank.RESERVED, Rank.UNDECIDED):
        raise _already(row)
    return _append(tx, epoch, "undecided", MessageRow(key, _status(tx, epoch, Rank.UNDECIDED, reason)))


def reject(tx: Transaction, epoch: int, key: str, reason: str) -> MessageRow:
    """A person decided that there will be no (further) answer."""
    row = _known(tx, key)
    if not row.open:
        raise _already(row)
    return _append(tx, epoch, "rejected", MessageRow(key, _status(tx, epoch, Rank.REJECTED, reason)))


def commit(tx: Transaction, epoch: int, key: str, digest: str, at: str, machine: str) -> MessageRow:
    """All parts of this answer reached all channels. Beats every other state; a repeat changes nothing."""
    row = _known(tx, key)
    if row.commit is not None:
        return row
    assert row.origin is not None
    done = Commit(epoch, tx.next_line(row.origin.topic), digest, at, machine)
    return _append(tx, epoch, "committed", MessageRow(key, _status(tx, epoch, Rank.COMMITTED), commit=done))


def advance_cursor(tx: Transaction, epoch: int, key: str) -> MessageRow:
    """The channel's own position moved past this answered message."""
    row = _known(tx, key)
    if row.rank is not Rank.COMMITTED:
        return row
    status = _status(tx, epoch, Rank.CURSOR_ADVANCED)
    return _append(tx, epoch, "cursor_advanced", MessageRow(key, status))


def place(tx: Transaction, epoch: int, placement: Placement) -> LogPosition:
    """Decide where a topic runs. Raises ``stale-placement`` unless its ownership epoch is a new one."""
    known = tx.placement(placement.topic)
    if known is not None and (placement.epoch, placement.n) <= (known.epoch, known.n):
        raise InstarError(
            "stale-placement", f"topic {placement.topic} was placed anew meanwhile", "look again and repeat"
        )
    return tx.append(epoch, "placement", placement).position


def open_epoch(tx: Transaction, epoch: int, machine: str, incomplete: frozenset[str]) -> LogPosition:
    """Begin our epoch; the first entry of it. What was cut off here and never came back is logged again.

    Raises ``stale-epoch`` if the log is already in a newer epoch, or in this one by another machine.
    """
    if (tx.head.epoch, tx.opened_by) == (epoch, machine):
        return tx.head.position
    if tx.head.epoch >= epoch:
        raise InstarError("stale-epoch", f"the ledger is already in epoch {tx.head.epoch}")
    missing = (incomplete | tx.incomplete) - {machine}
    rows, placements, _ = tx.orphans()
    tx.append(epoch, "open", Opening(tx.head, machine, tuple(sorted(missing))))
    for row in sorted(rows, key=line_order):
        _append(tx, epoch, "joined", _renumbered(tx, epoch, row, origin=True, commit=True))
    for placement in placements:
        tx.append(epoch, "placement", placement)
    tx.forget_orphans()
    _doubt(tx, epoch, tx.open_rows())
    return tx.head.position


def adopt(
    tx: Transaction,
    epoch: int,
    machine: str,
    offered: Iterable[MessageRow],
    placements: Iterable[Placement],
) -> list[str]:
    """Join all that ``machine`` knows and this log does not, in the order in which it happened; returns the
    keys that changed. Machines still missing may have answered what came unanswered."""
    folded: dict[str, MessageRow] = {}
    for part in offered:
        folded[part.key] = join(folded[part.key], part) if part.key in folded else part
    changed = []
    for key, row in sorted(folded.items(), key=lambda item: line_order(item[1])):
        mine = tx.row(key)
        merged = row if mine is None else join(join(mine, row), _void(tx, mine, row))
        if merged != mine:
            new_origin = mine is None or mine.origin != merged.origin
            new_commit = mine is None or mine.commit != merged.commit
            renumbered = _renumbered(tx, epoch, merged, origin=new_origin, commit=new_commit)
            _append(tx, epoch, "joined", renumbered)
            changed.append(key)
    _doubt(tx, epoch, (found for key in changed if (found := tx.row(key)) is not None), but=machine)
    for placement in placements:
        known = tx.placement(placement.topic)
        if known is None or newer_placement(known, placement) != known:
            tx.append(epoch, "placement", placement)
    return changed


def report(tx: Transaction, epoch: int, machine: str) -> None:
    """A machine whose rows were missing has handed them up."""
    if machine in tx.incomplete:
        tx.append(epoch, "reported", Reported(machine))


def miss(tx: Transaction, epoch: int, machines: frozenset[str]) -> None:
    """Rows that only these machines have are missing here; they may have answered what is open."""
    new = machines - tx.incomplete
    if new:
        tx.append(epoch, "missing", Missing(tuple(sorted(new))))
        _doubt(tx, epoch, tx.open_rows())


# -- checks -----------------------------------------------------------------------------------------------


def _doubt(tx: Transaction, epoch: int, rows: Iterable[MessageRow], but: str = "") -> None:
    """Mark unanswered messages as perhaps answered by the machines that are missing (``but`` for the one
    that just told us of them)."""
    unheard = tuple(sorted(tx.incomplete - {but}))
    for row in rows:
        if row.open and row.rank < Rank.RESERVED and not set(unheard) <= set(row.unheard):
            _append(tx, epoch, "joined", MessageRow(row.key, unheard=unheard))


def _append(tx: Transaction, epoch: int, kind: str, part: MessageRow) -> MessageRow:
    tx.append(epoch, kind, part)
    row = tx.row(part.key)
    assert row is not None
    return row


def _status(tx: Transaction, epoch: int, rank: Rank, reason: str = "") -> Status:
    return Status(rank, epoch, tx.next_seq(epoch), reason)


def _known(tx: Transaction, key: str) -> MessageRow:
    row = tx.row(key)
    if row is None or row.origin is None:  # also for a marker that came without its message
        raise InstarError("unknown-message", f"there is no message {key}", status=404)
    return row


def _unanswered(tx: Transaction, key: str) -> MessageRow:
    row = _known(tx, key)
    if row.reservations or row.rank >= Rank.RESERVED:
        raise _already(row)
    return row


def _may_answer(tx: Transaction, epoch: int, key: str, grant: Grant) -> MessageRow:
    """The message to be answered. Raises ``stale-grant`` when a newer one was given, or another epoch has
    begun."""
    row = _unanswered(tx, key)
    if row.grant > grant or grant.epoch != epoch:
        raise stale_grant(key)
    return row


def _granted(tx: Transaction, epoch: int, key: str, grant: Grant) -> None:
    """As ``_may_answer``. A grant of this epoch that the log does not have could not be written when it was
    given (the disk was full): nobody else has the message, so it is entered now."""
    if _may_answer(tx, epoch, key, grant).grant < grant:
        begin(tx, epoch, key, grant)


def _already(row: MessageRow) -> InstarError:
    return InstarError("already-replied", f"message {row.key} is {row.state}", extra={"state": row.state})


def stale_grant(key: str) -> InstarError:
    """The refusal of what comes under a grant that has ended."""
    return InstarError("stale-grant", f"message {key} was given to somebody else meanwhile")


def _void(tx: Transaction, mine: MessageRow, offered: MessageRow) -> MessageRow:
    """Mark offered answers that can never have been sent, so that ours stands without a doubt.

    An answer is sent only when the whole electorate has its reservation. We came from that electorate, so
    what we lacked when our epoch began was not sent; unless its machine is listed as ``incomplete``, because
    we came from the bench or by force and know only part of what it did.
    """
    known = {reservation.digest for reservation in mine.reservations}
    unsent = [
        (r.digest, r.epoch)
        for r in offered.reservations
        if r.digest not in known and r.epoch < tx.head.epoch and r.machine not in tx.incomplete
    ]
    return MessageRow(mine.key, void=tuple(sorted(unsent)) if mine.live else ())


def _renumbered(tx: Transaction, epoch: int, row: MessageRow, *, origin: bool, commit: bool) -> MessageRow:
    """The row with line numbers of this epoch: those of another machine's epoch may be taken here."""
    if row.origin is None:
        return row
    line = tx.next_line(row.origin.topic)
    if origin:
        row = msgspec.structs.replace(row, origin=msgspec.structs.replace(row.origin, epoch=epoch, seq=line))
        line += 1
    if commit and row.commit is not None:
        row = msgspec.structs.replace(row, commit=msgspec.structs.replace(row.commit, epoch=epoch, seq=line))
    return row
