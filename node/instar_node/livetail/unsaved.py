"""What the entries say and the rest of the tail's tables does not show yet.

What is held of each topic, where the log ends, and the index that finds a topic's lines follow from the
entries. Those grow at their end; the rest is scattered over many pages. So it is written in rounds, and at
once when it does not follow from the entries alone: when lines were dropped for space or cut off, or numbers
are missing at the end. A start counts the entries after the last round again (``accounts.recover``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from instar_node.contracts import LogPosition
from instar_node.livetail import store
from instar_node.livetail.entry import LineId, TailEntry, identity
from instar_node.livetail.store import TopicState

ROUND_ENTRIES = 1_000
"""Entries after which a round is written: what a start counts again at most, in some 10 ms."""


class Unsaved:
    """What changed since the last round."""

    def __init__(self, since: LogPosition) -> None:
        """``since``: the end of the log, as the tables show it."""
        self.since = since
        self.topics: dict[str, TopicState] = {}
        self.ends: dict[int, int] = {}
        """Epoch -> last seq in it."""
        self.lines: set[LineId] = set()
        """The lines that are not listed."""

    def add(
        self, topics: Mapping[str, TopicState], ends: Mapping[int, int], entries: Iterable[TailEntry]
    ) -> None:
        """Take in what a durable job changed."""
        self.topics.update(topics)
        self.ends.update(ends)
        self.lines.update(identity(entry.line) for entry in entries)

    def due(self, head: LogPosition) -> bool:
        """Whether the log, which now ends here, has grown enough for a round."""
        return head.seq - self.since.seq >= ROUND_ENTRIES

    def save(self, db: sqlite3.Connection, topics: Mapping[str, TopicState], ends: Mapping[int, int]) -> None:
        """Have the tables show all this and what a job under way changes."""
        store.list_entries(db)
        store.save_topics(db, (self.topics | dict(topics)).values())
        store.move_head(db, self.since, self.ends | dict(ends))
