"""Drops the texts of what was settled long ago: never the key, the end state, the epochs or the hashes.

Each machine compacts its own copy of the log, from its beginning, and stops before the oldest message that
still waits for somebody: what is open keeps its text, and so does all that came after it. An entry without
its text keeps its place in the running hash (``LogEntry.digest``), so copies compacted differently still
compare. SQLite reuses the space; the file does not shrink.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from instar_node.background import Background
from instar_node.clock import Clock, iso
from instar_node.contracts import Database
from instar_node.delivery import tables
from instar_node.delivery.entries import LogEntry, compacted, decode_message
from instar_node.delivery.log import ReplicatedLog
from instar_node.delivery.rows import MessageRow, without_text
from instar_node.delivery.state import TopicHead
from instar_node.errors import InstarError

log = logging.getLogger("instar.delivery")

SECONDS_PER_DAY = 86_400
PAUSE_S = 3_600.0
CHUNK_BYTES = 64 * 1024
"""Entries looked at in one transaction, so that messages never wait long for it."""


class Chunk(NamedTuple):
    """What one transaction came to: entries without their texts now, whether more may follow at once, and the
    newest lines of topics that have lost their texts."""

    dropped: int
    more: bool
    heads: Sequence[TopicHead]


class Compactor:
    """Compacts in the background, an hour after the start and then every hour."""

    def __init__(self, database: Database, log: ReplicatedLog, clock: Clock, keep_days: int) -> None:
        """``keep_days``: how long texts are kept after a message was settled; 0 = for ever."""
        self._database = database
        self._log = log
        self._clock = clock
        self._keep_days = keep_days
        self._task = Background("ledger-compaction", self._run)

    def start(self) -> None:
        """Begin, if texts are ever to be dropped."""
        if self._keep_days:
            self._task.start()

    async def stop(self) -> None:
        """End; a chunk under way is finished or undone."""
        await self._task.stop()

    async def compact(self) -> int:
        """Drop all that is old enough now; returns how many entries lost their texts."""
        before = iso(self._clock.wall() - self._keep_days * SECONDS_PER_DAY)
        await self._log.save()  # no old text is left in memory, to be written later
        dropped, more = 0, True
        while more:
            chunk = await self._database.write(lambda c: compact_chunk(c, before))
            self._log.state.drop_texts(chunk.heads)
            dropped, more = dropped + chunk.dropped, chunk.more
        return dropped

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(PAUSE_S)
            try:
                dropped = await self.compact()
            except InstarError as error:
                log.error("old texts could not be dropped: %s", error.message)
            else:
                if dropped:
                    log.info("dropped the texts of %d entries older than %d days", dropped, self._keep_days)


def compact_chunk(connection: sqlite3.Connection, before: str) -> Chunk:
    """On the writer thread: drop the texts of the next entries whose messages were settled before a time."""
    start = end = tables.compacted_to(connection)
    unsaved = set(_keys(tables.entries_after(connection, tables.saved_to(connection))))
    entries: list[LogEntry] = []
    rows: dict[str, MessageRow] = {}
    heads: list[TopicHead] = []
    more = False
    for entry in tables.entries_after(connection, start, CHUNK_BYTES):
        if (body := decode_message(entry)) is not None:
            row = rows.get(body.key) or tables.load_row(connection, body.key)
            if row is None or body.key in unsaved or row.open or _settled_at(row) >= before:
                more = False
                break
            rows[row.key] = without_text(row)
            entries.append(compacted(entry, body))
        end, more = entry.position, True
    if end != start:
        tables.save_rows(connection, ((row, row) for row in rows.values()))  # its lines stay where they are
        topics = {row.origin.topic for row in rows.values() if row.origin is not None}
        newest = tables.load_topics(connection, topics)
        heads = [replace(head, text="") for head in newest if head.at < before]
        tables.save_topics(connection, heads)
        tables.save_compacted(connection, entries, end)
    return Chunk(len(entries), more, heads)


def _keys(entries: Iterable[LogEntry]) -> Iterator[str]:
    """The messages of these entries."""
    for entry in entries:
        if (body := decode_message(entry)) is not None:
            yield body.key


def _settled_at(row: MessageRow) -> str:
    """When the last was heard of it (ISO-8601, UTC, so texts compare as times do)."""
    return max(
        row.origin.at if row.origin is not None else "", row.commit.at if row.commit is not None else ""
    )
