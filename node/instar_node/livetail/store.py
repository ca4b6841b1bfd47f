"""The live tail in SQLite. Every function is one step of a job on the database's writer or reader thread.

The tables are described in ``storage/migrations``: 002, 007 and 009.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from instar_node.contracts import LogPosition
from instar_node.livetail.behind import TopicBehind
from instar_node.livetail.entry import EMPTY_DIGEST, START, Line, TailEntry, set_digest
from instar_node.storage.statements import insert_rows

PREVIEW = 200
"""Characters of a topic's last line kept for lists of topics."""
LINEAGE_KEPT = 256
"""Epochs remembered; a copy that shares none of them starts from the beginning."""

_LINE = "topic, topic_seq, role, text, at, key, reply_to, machine_id, said_in"

_LISTED = "tail_entries INDEXED BY tail_line WHERE listed = 1"
"""The entries that the index of topics has."""
_IS_UNLISTED = (
    "listed = 0 AND seq > coalesce((SELECT last_seq FROM tail_lineage ORDER BY epoch DESC LIMIT 1), 0)"
)
_UNLISTED = f"tail_entries NOT INDEXED WHERE {_IS_UNLISTED}"
"""Those that came since the last round: few, at the end of the log."""


class TopicState(msgspec.Struct, frozen=True):
    """What is held of one topic. ``first`` and ``last`` are the lowest and highest ``topic_seq`` held,
    ``floor`` the highest that was dropped for space, ``size`` the bytes of text."""

    topic: str
    floor: int = 0
    first: int = 0
    last: int = 0
    count: int = 0
    size: int = 0
    digest: bytes = EMPTY_DIGEST
    last_at: str = ""
    last_role: str = ""
    last_text: str = ""


_REPLACES_TOPIC = (
    "ON CONFLICT (topic) DO UPDATE SET floor=excluded.floor, first=excluded.first, last=excluded.last,"
    " count=excluded.count, bytes=excluded.bytes, digest=excluded.digest, last_at=excluded.last_at,"
    " last_role=excluded.last_role, last_text=excluded.last_text"
)


EntryRow = tuple[int | str | bytes | None, ...]
"""An entry as the table keeps it."""


def entry_row(entry: TailEntry, size: int, digest: bytes) -> EntryRow:
    """The row of an entry, not yet listed. ``size`` and ``digest`` are those of its line."""
    return entry.position.seq, entry.position.epoch, *msgspec.structs.astuple(entry.line), size, digest, 0


def lineage(db: sqlite3.Connection) -> dict[int, int]:
    """Epoch -> last seq in it."""
    return dict(db.execute("SELECT epoch, last_seq FROM tail_lineage").fetchall())


def move_head(db: sqlite3.Connection, before: LogPosition, ends: Mapping[int, int]) -> None:
    """Note how far the log now goes in each epoch it went through since ``before``: epoch -> last seq."""
    for end in ends.items():
        db.execute("INSERT OR REPLACE INTO tail_lineage VALUES (?, ?)", end)
    if ends.keys() <= {before.epoch}:
        return
    db.execute(
        "DELETE FROM tail_lineage WHERE epoch NOT IN"
        " (SELECT epoch FROM tail_lineage ORDER BY epoch DESC LIMIT ?)",
        (LINEAGE_KEPT,),
    )


def topic_states(db: sqlite3.Connection) -> dict[str, TopicState]:
    """Every topic ever held."""
    return {row[0]: TopicState(*row) for row in db.execute("SELECT * FROM tail_topics")}


def insert(db: sqlite3.Connection, rows: Iterable[EntryRow]) -> None:
    """Add entries that are not held."""
    insert_rows(db, "tail_entries", rows)


def list_entries(db: sqlite3.Connection) -> None:
    """Have the index show every entry. The end of the log must be noted with it (``move_head``)."""
    db.execute(f"UPDATE tail_entries NOT INDEXED SET listed = 1 WHERE {_IS_UNLISTED}")  # noqa: S608


def holds(db: sqlite3.Connection, line: Line) -> bool:
    """Whether the line is held and listed."""
    found = db.execute(
        f"SELECT 1 FROM {_LISTED} AND topic = ? AND topic_seq = ? AND role = ? AND key = ?",  # noqa: S608
        (line.topic, line.topic_seq, line.role, line.key),
    )
    return found.fetchone() is not None


def oldest_first(db: sqlite3.Connection, topic: str) -> Iterator[tuple[int, int, int, bytes]]:
    """Of each listed line of a topic, as it is asked for: its place in the log and in the topic, its bytes
    and its digest."""
    return db.execute(
        f"SELECT seq, topic_seq, bytes, digest FROM {_LISTED} AND topic = ? ORDER BY topic_seq, seq",  # noqa: S608
        (topic,),
    )


def delete(db: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Forget the entries at these places in the log."""
    db.executemany("DELETE FROM tail_entries WHERE seq = ?", ((seq,) for seq in seqs))


def save_topics(db: sqlite3.Connection, states: Iterable[TopicState]) -> None:
    """Store what is held of these topics."""
    insert_rows(db, "tail_topics", map(msgspec.structs.astuple, states), _REPLACES_TOPIC)


def truncate(db: sqlite3.Connection, position: LogPosition) -> dict[str, TopicState]:
    """Forget every entry after ``position``; the new states of the topics concerned. All must be listed."""
    rows = db.execute(
        "SELECT DISTINCT topic FROM tail_entries NOT INDEXED WHERE seq > ?", (position.seq,)
    ).fetchall()
    db.execute("DELETE FROM tail_entries WHERE seq > ?", (position.seq,))
    db.execute("DELETE FROM tail_lineage WHERE epoch > ?", (position.epoch,))
    recounted = {topic: _recount(db, topic) for (topic,) in rows}
    if position > START:
        move_head(db, START, {position.epoch: position.seq})
        return recounted
    # What was dropped for space may now come again, from the copy this one is to equal.
    db.execute("UPDATE tail_topics SET floor = 0")
    return topic_states(db)


def _recount(db: sqlite3.Connection, topic: str) -> TopicState:
    found = db.execute(f"SELECT bytes, digest FROM {_LISTED} AND topic = ?", (topic,)).fetchall()  # noqa: S608
    floor: int = db.execute("SELECT floor FROM tail_topics WHERE topic = ?", (topic,)).fetchone()[0]
    size, digest = sum(size for size, _ in found), set_digest(sum(int.from_bytes(one) for _, one in found))
    return _save(db, TopicState(topic, floor=floor, count=len(found), size=size, digest=digest))


def _save(db: sqlite3.Connection, counted: TopicState) -> TopicState:
    """Fill in first and last line from the entries, and store."""
    last = db.execute(
        f"SELECT topic_seq, at, role, text FROM {_LISTED} AND topic = ?"  # noqa: S608
        " ORDER BY topic_seq DESC, seq DESC LIMIT 1",
        (counted.topic,),
    ).fetchone() or (0, "", "", "")
    first = next(oldest_first(db, counted.topic))[1] if counted.count else 0
    state = msgspec.structs.replace(
        counted, first=first, last=last[0], last_at=last[1], last_role=last[2], last_text=last[3][:PREVIEW]
    )
    save_topics(db, [state])
    return state


def newest_before(db: sqlite3.Connection, topic: str, bound: int, limit: int) -> list[Line]:
    """The ``limit`` last lines of a topic before ``topic_seq`` ``bound``, newest first."""
    return _page(db, "topic_seq < ?2", "topic_seq DESC, seq DESC", (topic, bound, limit))


def lines_after(db: sqlite3.Connection, topic: str, after: int, limit: int) -> list[Line]:
    """The first ``limit`` lines of a topic after ``topic_seq`` ``after``, in order."""
    return _page(db, "topic_seq > ?2", "topic_seq, seq", (topic, after, limit))


def _page(db: sqlite3.Connection, which: str, order: str, arguments: tuple[str, int, int]) -> list[Line]:
    # The index has a topic's lines by number; of those few with the same number SQLite sorts the places, and
    # among them the few that it does not have yet.
    listed, unlisted = (
        f"SELECT seq, {_LINE} FROM {part} AND topic = ?1 AND {which}"  # noqa: S608
        for part in (_LISTED, _UNLISTED)
    )
    page = f"ORDER BY {order} LIMIT ?3"
    found = db.execute(f"SELECT * FROM ({listed} {page}) UNION ALL {unlisted} {page}", arguments)  # noqa: S608
    return [Line(*row) for _, *row in found]


def entries_after(db: sqlite3.Connection, seq: int, limit: int) -> list[TailEntry]:
    """Up to ``limit`` entries after ``seq``, in order."""
    found = db.execute(
        f"SELECT epoch, seq, {_LINE} FROM tail_entries WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
        (seq, limit),
    )
    return [TailEntry(LogPosition(row[0], row[1]), Line(*row[2:])) for row in found]


def previews_after(db: sqlite3.Connection, seq: int) -> Iterator[tuple[TailEntry, int, bytes]]:
    """Every entry after ``seq``, in order, with the beginning of its text alone, and the bytes and the digest
    of its whole line."""
    found = db.execute(
        f"SELECT bytes, digest, epoch, seq, {_LINE} FROM tail_entries WHERE seq > ? ORDER BY seq",  # noqa: S608
        (seq,),
    )
    for size, digest, epoch, place, topic, topic_seq, role, text, *rest in found:
        # not substr(): that ends at the first NUL
        line = Line(topic, topic_seq, role, text[:PREVIEW], *rest)
        yield TailEntry(LogPosition(epoch, place), line), size, digest


def behind(db: sqlite3.Connection, seq: int) -> list[TopicBehind]:
    """What is held after ``seq``, in no order."""
    found = db.execute(
        "SELECT topic, count(*), sum(bytes), min(at) FROM tail_entries NOT INDEXED"  # by place, not by topic
        " WHERE seq > ? GROUP BY topic",
        (seq,),
    )
    return [TopicBehind(*row) for row in found]


def digest_between(db: sqlite3.Connection, topic: str, first: int, through: int) -> tuple[int, bytes]:
    """Count and digest of a topic's lines from ``topic_seq`` ``first`` on, up to the log's ``seq``
    ``through``."""
    found = [
        digest
        for part in (_LISTED, _UNLISTED)
        for (digest,) in db.execute(
            f"SELECT digest FROM {part} AND topic = ? AND topic_seq >= ? AND seq <= ?",  # noqa: S608
            (topic, first, through),
        )
    ]
    return len(found), set_digest(sum(map(int.from_bytes, found)))
