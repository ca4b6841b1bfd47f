"""The ledger's tables: every SQL statement of the replicated log and its view."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from instar_node.contracts import LogPosition, Placement
from instar_node.delivery.entries import Cut, LogEntry, Mark, Missing, Opening, Reported, decode_body
from instar_node.delivery.rows import MessageRow
from instar_node.delivery.state import LedgerState, TopicHead, Totals
from instar_node.delivery.unsaved import Unsaved
from instar_node.storage.statements import insert_rows, select_known

_encode = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(MessageRow).decode
_decode_head = msgspec.msgpack.Decoder(TopicHead).decode
_decode_placement = msgspec.msgpack.Decoder(Placement).decode

LogRow = tuple[int, int, str, bytes, bytes, int, int, bytes | None]
"""epoch, seq, kind, body, hash, the running totals of this copy, and the digest of a compacted body."""
RowChange = tuple[MessageRow | None, MessageRow]
"""What was known of a message, and what is known now."""
LineRow = tuple[str, int, str, int]
"""Topic and number of a line, the message's key, and 0 for the message or n for its answer's n-th part."""


def load_saved(connection: sqlite3.Connection) -> LedgerState:
    """The state at the position up to which the tables show what the log says."""
    state = LedgerState()
    last = connection.execute(
        "SELECT epoch, seq, hash, count, bytes FROM ledger_log JOIN ledger_saved USING (epoch, seq)"
    ).fetchone()
    if last is not None:
        state.head, state.totals = Mark(*last[:3]), Totals(*last[3:])
        state.opened_by, state.incomplete = load_opening(connection, state.head.epoch)
        state.unsaved = Unsaved(state.totals)
    for (blob,) in connection.execute("SELECT row FROM messages WHERE open = 1"):
        row = _decode_row(blob)
        state.open[row.key] = row
    for (blob,) in connection.execute("SELECT row FROM topics"):
        head = _decode_head(blob)
        state.topics[head.topic] = head
    for (blob,) in connection.execute("SELECT row FROM placements"):
        placement = _decode_placement(blob)
        state.placements[placement.topic] = placement
    state.positions.update(connection.execute("SELECT channel, position FROM positions").fetchall())
    return state


def load_row(connection: sqlite3.Connection, key: str) -> MessageRow | None:
    """One row from the database."""
    found = connection.execute("SELECT row FROM messages WHERE key = ?", (key,)).fetchone()
    return None if found is None else _decode_row(found[0])


def count_saved(connection: sqlite3.Connection) -> int:
    """How many rows the database has."""
    count: int = connection.execute("SELECT count(*) FROM messages").fetchone()[0]
    return count


def known_keys(connection: sqlite3.Connection, keys: Iterable[str]) -> set[str]:
    """Those of these keys that have a row in the database."""
    return select_known(connection, "key", "messages", keys)


def load_topics(connection: sqlite3.Connection, topics: Iterable[str]) -> list[TopicHead]:
    """The newest lines of these topics."""
    found = (connection.execute("SELECT row FROM topics WHERE topic = ?", (t,)).fetchone() for t in topics)
    return [_decode_head(row[0]) for row in found if row is not None]


def load_opening(connection: sqlite3.Connection, epoch: int) -> tuple[str | None, frozenset[str]]:
    """Who opened an epoch, and which machines have still not reported in it."""
    first = connection.execute(
        "SELECT epoch, seq, kind, body, hash FROM ledger_log WHERE epoch = ? AND seq = 1", (epoch,)
    ).fetchone()
    if first is None:
        return None, frozenset()
    opening = decode_body(LogEntry(*first))
    if not isinstance(opening, Opening):
        return None, frozenset()
    later = connection.execute(
        "SELECT epoch, seq, kind, body, hash FROM ledger_log"
        " WHERE epoch = ? AND kind IN ('reported', 'missing') ORDER BY seq",
        (epoch,),
    ).fetchall()
    incomplete = frozenset(opening.incomplete)
    for row in later:
        body = decode_body(LogEntry(*row))
        if isinstance(body, Missing):
            incomplete |= frozenset(body.machines)
        elif isinstance(body, Reported):
            incomplete -= {body.machine}
    return opening.machine, incomplete


def entries_after(
    connection: sqlite3.Connection, after: LogPosition, max_bytes: int | None = None
) -> list[LogEntry]:
    """The entries after a position, in order: all, or the first and as many more as fit ``max_bytes``."""
    cursor = connection.execute(
        "SELECT epoch, seq, kind, body, hash, digest FROM ledger_log"
        " WHERE (epoch, seq) > (?, ?) ORDER BY epoch, seq",
        (after.epoch, after.seq),
    )
    entries: list[LogEntry] = []
    size = 0
    for row in cursor:
        entry = LogEntry(*row)
        size += entry.size
        if entries and max_bytes is not None and size > max_bytes:
            break
        entries.append(entry)
    return entries


def newest_entries(connection: sqlite3.Connection, limit: int) -> list[LogEntry]:
    """The newest entries of the log, newest first."""
    cursor = connection.execute(
        "SELECT epoch, seq, kind, body, hash, digest FROM ledger_log ORDER BY epoch DESC, seq DESC LIMIT ?",
        (limit,),
    )
    return [LogEntry(*row) for row in cursor]


def last_marks(connection: sqlite3.Connection, limit: int) -> list[Mark]:
    """The last mark of each epoch, newest epoch first."""
    marks: list[Mark] = []
    below = 1 << 62
    while len(marks) < limit:
        found = connection.execute(
            "SELECT epoch, seq, hash FROM ledger_log WHERE epoch < ? ORDER BY epoch DESC, seq DESC LIMIT 1",
            (below,),
        ).fetchone()
        if found is None:
            break
        marks.append(Mark(*found))
        below = found[0]
    return marks


def mark_at(connection: sqlite3.Connection, position: LogPosition) -> Mark | None:
    """The mark at a position, if the log has it."""
    found = connection.execute(
        "SELECT epoch, seq, hash FROM ledger_log WHERE epoch = ? AND seq = ?", (position.epoch, position.seq)
    ).fetchone()
    return None if found is None else Mark(*found)


def totals_at(connection: sqlite3.Connection, position: LogPosition) -> Totals:
    """Running totals at a position of the log; zero before its first entry."""
    found = connection.execute(
        "SELECT count, bytes FROM ledger_log WHERE epoch = ? AND seq = ?", (position.epoch, position.seq)
    ).fetchone()
    return Totals(0, 0) if found is None else Totals(*found)


# -- writing ----------------------------------------------------------------------------------------------


def insert_log(connection: sqlite3.Connection, rows: Iterable[LogRow]) -> None:
    """Add entries at the end of the log."""
    insert_rows(connection, "ledger_log", rows)


def compacted_to(connection: sqlite3.Connection) -> LogPosition:
    """How far compaction has come."""
    return LogPosition(*connection.execute("SELECT epoch, seq FROM ledger_compaction").fetchone())


def save_compacted(connection: sqlite3.Connection, entries: Iterable[LogEntry], end: LogPosition) -> None:
    """Write entries without their texts, and how far compaction has come."""
    connection.executemany(
        "UPDATE ledger_log SET body = ?, digest = ? WHERE epoch = ? AND seq = ?",
        [(entry.body, entry.digest, entry.epoch, entry.seq) for entry in entries],
    )
    connection.execute("UPDATE ledger_compaction SET epoch = ?, seq = ?", (end.epoch, end.seq))


def delete_log_after(connection: sqlite3.Connection, position: LogPosition) -> None:
    """Cut the log off after a position."""
    place = (position.epoch, position.seq)
    connection.execute("DELETE FROM ledger_log WHERE (epoch, seq) > (?, ?)", place)
    connection.execute(
        "UPDATE ledger_compaction SET epoch = ?, seq = ? WHERE (epoch, seq) > (?, ?)", place * 2
    )


def saved_to(connection: sqlite3.Connection) -> LogPosition:
    """The position in the log that the other tables show."""
    return LogPosition(*connection.execute("SELECT epoch, seq FROM ledger_saved").fetchone())


def note_saved(connection: sqlite3.Connection, position: LogPosition) -> None:
    """All tables show what the log says up to this position."""
    connection.execute("UPDATE ledger_saved SET epoch = ?, seq = ?", (position.epoch, position.seq))


def save_rows(connection: sqlite3.Connection, changed: Iterable[RowChange]) -> None:
    """Write message rows, and where in their topics the messages and their committed replies stand.

    Of a row that changed several times the changes must come in order.
    """
    first: dict[str, MessageRow | None] = {}
    rows: dict[str, MessageRow] = {}
    for before, after in changed:
        first.setdefault(after.key, before)
        rows[after.key] = after
    insert_rows(
        connection,
        "messages",
        [(row.key, int(row.open), _encode(row)) for row in rows.values()],
        "ON CONFLICT (key) DO UPDATE SET open=excluded.open, row=excluded.row",
    )
    _save_lines(connection, [(first[key], row) for key, row in rows.items()])


def _save_lines(connection: sqlite3.Connection, changed: Iterable[RowChange]) -> None:
    come: list[LineRow] = []
    gone: list[LineRow] = []
    for before, after in changed:
        now = lines_of(after)
        if before is None:
            come += now
        elif (then := lines_of(before)) != now:
            come += now.keys() - then.keys()
            gone += then.keys() - now.keys()
    if gone:  # a message or an answer was numbered anew
        connection.executemany("DELETE FROM lines WHERE topic = ? AND seq = ? AND key = ? AND part = ?", gone)
    come.sort()  # what stands on one page is written together
    insert_rows(connection, "lines", come, "ON CONFLICT DO NOTHING")


def save_topics(connection: sqlite3.Connection, heads: Iterable[TopicHead]) -> None:
    """Write the newest lines of topics."""
    rows = [(head.topic, _encode(head)) for head in heads]
    insert_rows(connection, "topics", rows, "ON CONFLICT (topic) DO UPDATE SET row=excluded.row")


def save_placements(connection: sqlite3.Connection, placements: Iterable[Placement]) -> None:
    """Write where topics run."""
    rows = [(placement.topic, _encode(placement)) for placement in placements]
    insert_rows(connection, "placements", rows, "ON CONFLICT (topic) DO UPDATE SET row=excluded.row")


def save_positions(connection: sqlite3.Connection, positions: Iterable[tuple[str, str]]) -> None:
    """Write how far channels were read."""
    insert_rows(
        connection, "positions", positions, "ON CONFLICT (channel) DO UPDATE SET position=excluded.position"
    )


def note_orphans(connection: sqlite3.Connection, notes: Iterable[tuple[str, str]]) -> None:
    """Remember rows (``message`` or ``placement``, and which) whose entries were cut off."""
    connection.executemany("INSERT OR IGNORE INTO ledger_orphans VALUES (?, ?)", notes)


def load_orphans(connection: sqlite3.Connection, after: tuple[str, str] = ("", "")) -> list[tuple[str, str]]:
    """What ``note_orphans`` noted, in order, after one of them."""
    return connection.execute(
        "SELECT kind, id FROM ledger_orphans WHERE (kind, id) > (?, ?) ORDER BY kind, id", after
    ).fetchall()


def note_cuts(connection: sqlite3.Connection, cuts: Iterable[Cut]) -> None:
    """Remember where the log was cut off, as long as the orphans."""
    connection.executemany(
        "INSERT OR IGNORE INTO ledger_cuts VALUES (?, ?, ?, ?)",
        [(cut.mark.epoch, cut.mark.seq, cut.mark.hash, cut.machine) for cut in cuts],
    )


def load_cuts(connection: sqlite3.Connection) -> list[Cut]:
    """What ``note_cuts`` noted."""
    rows = connection.execute("SELECT epoch, seq, hash, machine FROM ledger_cuts ORDER BY epoch, seq")
    return [Cut(row[3], Mark(*row[:3])) for row in rows]


def forget_orphans(connection: sqlite3.Connection) -> None:
    """They are in the log again."""
    connection.execute("DELETE FROM ledger_orphans")
    connection.execute("DELETE FROM ledger_cuts")


def lines_of(row: MessageRow) -> dict[LineRow, None]:
    """Where the lines of a message stand: its own, if it is known, and those of the committed answer."""
    origin = row.origin
    if origin is None:
        return {}
    lines: dict[LineRow, None] = {(origin.topic, origin.seq, row.key, 0): None}
    if row.commit is not None and row.reservation is not None:
        first = row.commit.seq
        for part in range(len(row.reservation.replies)):
            lines[origin.topic, first + part, row.key, part + 1] = None
    return lines
