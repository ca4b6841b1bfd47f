"""A transaction on the ledger: entries to append, and the rows they join to.

It runs on the database's writer thread, works on top of the committed ``LedgerState`` and touches nothing but
its own overlay and the connection. Only when its group is synced does the event loop absorb the outcome, so
a failed write leaves no trace anywhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from instar_node.contracts import LogPosition, Placement
from instar_node.delivery import tables
from instar_node.delivery.entries import (
    Body,
    Cut,
    LogEntry,
    Mark,
    Missing,
    Opening,
    check_follows,
    decode_body,
    make_entry,
)
from instar_node.delivery.rows import MessageRow, join, line_order, newer_placement
from instar_node.delivery.state import Change, LedgerState, Outcome, TopicHead, Totals
from instar_node.delivery.unsaved import moves_lines

PREVIEW = 200
"""Characters of the newest line kept in a topic's summary."""

OrphanId = tuple[str, str]
"""``message`` or ``placement``, and its key or topic."""


class Transaction:
    """Changes under way on the writer thread: entries to append, rows they join to."""

    def __init__(self, connection: sqlite3.Connection, state: LedgerState) -> None:
        self._connection = connection
        self._state = state
        self.head = state.head
        self.totals = state.totals
        self.opened_by = state.opened_by
        self.incomplete = state.incomplete
        self.entries: list[LogEntry] = []
        self.changes: list[Change] = []
        self.rows: dict[str, MessageRow] = {}
        self.topics: dict[str, TopicHead] = {}
        self.placements: dict[str, Placement] = {}
        self.positions: dict[str, str] = {}
        self.truncated = False
        self._must_save = False
        self._log_rows: list[tables.LogRow] = []
        self._unknown: set[str] = set()
        """Keys that were looked for and have no row yet."""

    # -- reading ----------------------------------------------------------------------------------------

    def row(self, key: str) -> MessageRow | None:
        """The row as this transaction sees it."""
        found = self.rows.get(key) or self._state.known(key)
        if found is not None or key in self._unknown:
            return found
        found = tables.load_row(self._connection, key)
        if found is None:
            self._unknown.add(key)
        return found

    def look_up(self, keys: Iterable[str]) -> None:
        """Find out at once which of these rows are new: nearly all of those that steps ask for."""
        wanted = {key for key in keys if key not in self.rows and not self._state.known(key)}
        if wanted:
            self._unknown |= wanted - tables.known_keys(self._connection, wanted)

    def open_rows(self) -> list[MessageRow]:
        """Every row with something still to do, oldest first in each topic."""
        rows = {**self._state.open, **self.rows}
        return sorted((row for row in rows.values() if row.open), key=line_order)

    def next_line(self, topic: str) -> int:
        """The next free line number of a topic."""
        head = self.topics.get(topic) or self._state.topics.get(topic)
        return 1 if head is None else head.seq + 1

    def placement(self, topic: str) -> Placement | None:
        return self.placements.get(topic) or self._state.placements.get(topic)

    def next_seq(self, epoch: int) -> int:
        """The ``seq`` that the next entry of this epoch gets."""
        return self.head.seq + 1 if self.head.epoch == epoch else 1

    def marks(self, also_at: Iterable[LogPosition], limit: int) -> list[Mark]:
        """The last mark of each epoch, and those at the given positions that this log has; sorted."""
        self._write_log()
        found = set(tables.last_marks(self._connection, limit))
        for position in also_at:
            mark = tables.mark_at(self._connection, position)
            found |= set() if mark is None else {mark}
        return sorted(found)

    # -- growing ----------------------------------------------------------------------------------------

    def append(self, epoch: int, kind: str, body: Body) -> LogEntry:
        """Add an entry of our own at the head and apply it."""
        entry = make_entry(self.head, epoch, kind, body)
        self._add(entry, body)
        return entry

    def ingest(self, entries: Sequence[LogEntry]) -> None:
        """Add the holder's entries, all checked against the running hash before the first is applied."""
        prev, bodies = self.head, []
        for entry in entries:
            check_follows(prev, entry)
            bodies.append(decode_body(entry))
            prev = entry.mark
        for entry, body in zip(entries, bodies, strict=True):
            self._add(entry, body)

    def truncate(self, common: Mark) -> int:
        """Cut the log off after ``common``; its rows stay known and are noted as orphans. Returns how many
        entries were cut."""
        self._write_log()
        cut = tables.entries_after(self._connection, common.position)
        notes = [note for entry in cut if (note := _orphan_note(decode_body(entry))) is not None]
        tables.note_orphans(self._connection, notes)
        tables.note_cuts(self._connection, self._cuts(cut))
        tables.delete_log_after(self._connection, common.position)
        self.head, self.totals = common, tables.totals_at(self._connection, common.position)
        self.opened_by, self.incomplete = tables.load_opening(self._connection, common.epoch)
        self.entries.clear()
        self.truncated = self._must_save = True  # or a start would apply what is no longer there
        return len(cut)

    def _cuts(self, entries: Sequence[LogEntry]) -> list[Cut]:
        last = {entry.epoch: entry.mark for entry in entries}
        openers = {epoch: tables.load_opening(self._connection, epoch)[0] for epoch in last}
        return [Cut(opener, last[epoch]) for epoch, opener in openers.items() if opener is not None]

    def cuts(self) -> list[Cut]:
        """Where the log was cut off, of what was not yet taken up."""
        return tables.load_cuts(self._connection)

    def orphans(
        self, after: OrphanId = ("", ""), max_bytes: int | None = None
    ) -> tuple[list[MessageRow], list[Placement], OrphanId | None]:
        """Rows whose entries were cut off here and are not known to have come back: all, or a page of about
        ``max_bytes`` with the ``after`` of the next page (``None`` when this was the last)."""
        rows: list[MessageRow] = []
        placements: list[Placement] = []
        size = 0
        for kind, name in tables.load_orphans(self._connection, after):
            if max_bytes is not None and size > max_bytes:
                return rows, placements, after
            after = (kind, name)
            if kind == "message" and (row := self.row(name)) is not None:
                rows.append(row)
                size += _rough_size(row)
            elif kind == "placement" and (placement := self.placement(name)) is not None:
                placements.append(placement)
                size += len(name) + 64
        return rows, placements, None

    def forget_orphans(self) -> None:
        """They are in the log again."""
        tables.forget_orphans(self._connection)

    def save(self) -> None:
        """Have all tables show what the log says, when this transaction is finished."""
        self._must_save = True

    def replay(self, entries: Iterable[LogEntry]) -> Outcome:
        """Apply entries again that the log has and the tables do not show; what they come to."""
        for entry in entries:
            self._apply(entry, decode_body(entry))
        return self._outcome(saved=False)

    def finish(self) -> Outcome:
        """Write everything gathered to the log, and when a round is due to the other tables, one statement a
        table; says what it came to."""
        self._write_log()
        save = self._must_save or self._state.unsaved.due(self.totals) or any(map(moves_lines, self.changes))
        if save:
            self._save_tables()
        return self._outcome(saved=save)

    def _save_tables(self) -> None:
        unsaved, connection = self._state.unsaved, self._connection
        changes = chain(unsaved.changes, self.changes)
        tables.save_rows(connection, ((change.before, change.after) for change in changes))
        tables.save_topics(connection, (unsaved.topics | self.topics).values())
        tables.save_placements(connection, (unsaved.placements | self.placements).values())
        tables.save_positions(connection, (unsaved.positions | self.positions).items())
        tables.note_saved(connection, self.head.position)

    def _outcome(self, saved: bool) -> Outcome:
        return Outcome(
            self.head,
            self.totals,
            self.opened_by,
            self.incomplete,
            self.entries,
            self.changes,
            self.rows,
            self.topics,
            self.placements,
            self.positions,
            self.truncated,
            saved,
        )

    def _write_log(self) -> None:
        tables.insert_log(self._connection, self._log_rows)
        self._log_rows.clear()

    # -- applying ---------------------------------------------------------------------------------------

    def _add(self, entry: LogEntry, body: Body) -> None:
        self._apply(entry, body)
        self._log_rows.append(
            (
                entry.epoch,
                entry.seq,
                entry.kind,
                entry.body,
                entry.hash,
                self.totals.entries,
                self.totals.bytes,
                entry.digest,
            )
        )

    def _apply(self, entry: LogEntry, body: Body) -> None:
        self.totals = Totals(self.totals.entries + 1, self.totals.bytes + entry.size)
        self.head = entry.mark
        self.entries.append(entry)
        if isinstance(body, MessageRow):
            self._apply_row(entry.kind, body)
        elif isinstance(body, Placement):
            known = self.placement(body.topic)
            self.placements[body.topic] = body if known is None else newer_placement(known, body)
        elif isinstance(body, Opening):
            self.opened_by, self.incomplete = body.machine, frozenset(body.incomplete)
        elif isinstance(body, Missing):
            self.incomplete |= frozenset(body.machines)
        else:
            self.incomplete -= {body.machine}

    def _apply_row(self, kind: str, part: MessageRow) -> None:
        before = self.row(part.key)
        after = part if before is None else join(before, part)
        if after == before:
            return
        self.rows[part.key] = after
        self.changes.append(Change(kind, before, after))
        if after.origin is not None and (before is None or before.origin != after.origin):
            origin = after.origin
            if origin.position:
                self.positions[origin.channel] = origin.position
            self._raise_head(
                TopicHead(origin.topic, origin.seq, "user", origin.text[:PREVIEW], origin.at, origin.machine)
            )
        if after.commit is not None and after.origin is not None and after.reservation is not None:
            commit, replies = after.commit, after.reservation.replies
            if replies and (before is None or before.commit != commit):
                last = commit.seq + len(replies) - 1
                text = replies[-1][:PREVIEW]
                made_on = after.reservation.machine
                self._raise_head(TopicHead(after.origin.topic, last, "agent", text, commit.at, made_on))

    def _raise_head(self, line: TopicHead) -> None:
        known = self.topics.get(line.topic) or self._state.topics.get(line.topic)
        if known is not None and line.seq <= known.seq:
            return
        if line.role == "agent":
            answered_by = line.machine
        else:
            answered_by = known.answered_by if known is not None else ""
        self.topics[line.topic] = msgspec.structs.replace(line, answered_by=answered_by)


def _rough_size(row: MessageRow) -> int:
    texts = [reply for reservation in row.reservations for reply in reservation.replies]
    return 256 + len(row.origin.text if row.origin is not None else "") + sum(map(len, texts))


def _orphan_note(body: Body) -> tuple[str, str] | None:
    if isinstance(body, MessageRow):
        return "message", body.key
    return ("placement", body.topic) if isinstance(body, Placement) else None
