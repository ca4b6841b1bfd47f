"""Entries that one job of the database adds, and what is held of their topics with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Set

from instar_node.livetail import store
from instar_node.livetail.entry import (
    Line,
    LineId,
    TailEntry,
    end_of_log,
    identity,
    line_digest,
    line_size,
    set_digest,
)
from instar_node.livetail.store import PREVIEW, EntryRow, TopicState
from instar_node.livetail.unsaved import Unsaved


class _Account:
    """What is held of one topic while a job changes it: a ``TopicState`` with cheap sums."""

    __slots__ = ("_before", "_newest", "count", "digest", "first", "floor", "last", "size")

    def __init__(self, state: TopicState) -> None:
        self._before = state
        self._newest: Line | None = None
        self.floor, self.first, self.last = state.floor, state.first, state.last
        self.count, self.size, self.digest = state.count, state.size, int.from_bytes(state.digest)

    def add(self, line: Line, size: int, digest: bytes) -> None:
        seq = line.topic_seq
        if seq >= self.last:
            self.last, self._newest = seq, line
        if seq < self.first or not self.count:
            self.first = seq
        self.count += 1
        self.size += size
        self.digest += int.from_bytes(digest)

    def drop(self, topic_seq: int, size: int, digest: bytes) -> None:
        self.floor = topic_seq
        self.count -= 1
        self.size -= size
        self.digest -= int.from_bytes(digest)

    def state(self) -> TopicState:
        before, line = self._before, self._newest
        return TopicState(
            before.topic,
            self.floor,
            self.first,
            self.last,
            self.count,
            self.size,
            set_digest(self.digest),
            *(
                (before.last_at, before.last_role, before.last_text)
                if line is None
                else (line.at, line.role, line.text[:PREVIEW])
            ),
        )


class Additions:
    """The new entries of one job. First ``take`` each, then ``save`` them all.

    What was held is known from memory, so an entry that is new, as nearly all are, costs no query.
    """

    def __init__(
        self, db: sqlite3.Connection, topics: Mapping[str, TopicState], unlisted: Set[LineId]
    ) -> None:
        """``topics``: every topic of which something is held, or was dropped for space. ``unlisted``: lines
        that are held, and that the index does not have yet."""
        self._db = db
        self._topics = topics
        self._unlisted = unlisted
        self._accounts: dict[str, _Account] = {}
        self._taken: set[LineId] = set()
        self._rows: list[EntryRow] = []
        self.entries: list[TailEntry] = []
        self.size = 0
        """Bytes of all of them."""
        self.dropped = 0
        """Lines that had to make room."""

    def take(self, entry: TailEntry) -> bool:
        """Take an entry; ``False`` when its line is held already, or was dropped for space earlier."""
        line = entry.line
        account = self._accounts.get(line.topic) or self._open(line.topic)
        if line.topic_seq <= account.floor or (line.topic_seq <= account.last and self._holds(line)):
            return False
        size, digest = line_size(line), line_digest(line)
        account.add(line, size, digest)
        self._taken.add(identity(line))
        self._rows.append(store.entry_row(entry, size, digest))
        self.entries.append(entry)
        self.size += size
        return True

    def save(self, cap: int) -> dict[str, TopicState]:
        """Store the entries, drop the oldest lines of each topic while it exceeds ``cap`` bytes, and return
        what is held now of the topics concerned.

        The newest line always stays, however long it is.
        """
        store.insert(self._db, self._rows)
        full = [topic for topic, held in self._accounts.items() if held.size > cap and held.count > 1]
        if full:
            store.list_entries(self._db)
        for topic in full:
            self._make_room(topic, self._accounts[topic], cap)
        return {topic: account.state() for topic, account in self._accounts.items()}

    def _open(self, topic: str) -> _Account:
        account = self._accounts[topic] = _Account(self._topics.get(topic) or TopicState(topic))
        return account

    def _holds(self, line: Line) -> bool:
        name = identity(line)
        return name in self._taken or name in self._unlisted or store.holds(self._db, line)

    def _make_room(self, topic: str, account: _Account, cap: int) -> None:
        dropped = []
        for seq, topic_seq, size, digest in store.oldest_first(self._db, topic):
            if account.size <= cap or account.count == 1:
                account.first = topic_seq
                break
            account.drop(topic_seq, size, digest)
            dropped.append(seq)
        store.delete(self._db, dropped)
        self.dropped += len(dropped)


def recover(db: sqlite3.Connection) -> tuple[dict[str, TopicState], dict[int, int], Unsaved]:
    """What is held of each topic, and where each epoch ends (epoch -> last seq in it), as the last job left
    them: what the tables show, the entries after that counted again, which is what is unsaved."""
    topics, ends = store.topic_states(db), store.lineage(db)
    unsaved = Unsaved(end_of_log(ends))
    accounts: dict[str, _Account] = {}
    for entry, size, digest in store.previews_after(db, unsaved.since.seq):
        topic = entry.line.topic
        account = accounts.get(topic)
        if account is None:
            account = accounts[topic] = _Account(topics.get(topic) or TopicState(topic))
        account.add(entry.line, size, digest)
        unsaved.add({}, {entry.position.epoch: entry.position.seq}, [entry])
    unsaved.topics.update((topic, account.state()) for topic, account in accounts.items())
    ends |= unsaved.ends
    kept = sorted(ends)[-store.LINEAGE_KEPT :]
    return topics | unsaved.topics, {epoch: ends[epoch] for epoch in kept}, unsaved
