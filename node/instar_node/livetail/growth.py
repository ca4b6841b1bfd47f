"""The jobs of the database that make a copy of the conversation grow, and what they change."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from instar_node.contracts import LogPosition
from instar_node.livetail import store
from instar_node.livetail.accounts import Additions
from instar_node.livetail.entry import START, Batch, Line, TailEntry
from instar_node.livetail.store import TopicState
from instar_node.livetail.unsaved import Unsaved

log = logging.getLogger("instar.livetail")

Verdict = Literal["applied", "duplicate", "gap"]


class Held(NamedTuple):
    """What a job starts from: the durable end of the log, every topic, the bytes kept of each, and what of
    this the tables do not show."""

    head: LogPosition
    topics: Mapping[str, TopicState]
    cap: int
    unsaved: Unsaved


class Change(NamedTuple):
    """What a job did."""

    head: LogPosition
    ends: Mapping[int, int]
    """Epoch -> last seq in it, of the epochs the log went through."""
    topics: Mapping[str, TopicState]
    saved: bool
    """Whether with it the tables show all that the log says."""
    entries: Sequence[TailEntry] = ()
    size: int = 0
    """Bytes of the new entries."""
    verdicts: Sequence[Verdict] = ()


def number(db: sqlite3.Connection, held: Held, staged: Sequence[tuple[int, Line]]) -> Change:
    """Give staged lines, each with the epoch it is said in, their places at the end of the log."""
    head = held.head
    ends: dict[int, int] = {}
    additions = Additions(db, held.topics, held.unsaved.lines)
    for epoch, line in staged:
        if epoch < head.epoch:
            log.warning(
                "a line of epoch %d came after epoch %d had begun; left to its holder", epoch, head.epoch
            )
        elif additions.take(entry := TailEntry(LogPosition(epoch, head.seq + 1), line)):
            head = entry.position
            ends[epoch] = head.seq
    return _grown(db, held, head, ends, additions)


def follow(db: sqlite3.Connection, held: Held, batches: Sequence[Batch]) -> Change:
    """Add those of a holder's batches that continue this log, one after the other."""
    head = held.head
    ends: dict[int, int] = {}
    additions = Additions(db, held.topics, held.unsaved.lines)
    verdicts: list[Verdict] = []
    for batch in batches:
        verdicts.append(verdict := _verdict(batch, head))
        if verdict == "applied":
            for entry in batch.entries:
                if entry.position > head:
                    additions.take(entry)
                    ends[entry.position.epoch] = entry.position.seq
            head = batch.through
            ends[head.epoch] = head.seq
    return _grown(db, held, head, ends, additions, verdicts)


def cut(db: sqlite3.Connection, held: Held, position: LogPosition) -> Change:
    """Forget every entry after ``position``, which ``held`` goes beyond."""
    ends = {position.epoch: position.seq} if position > START else {}
    held.unsaved.save(db, {}, {})
    return Change(position, ends, store.truncate(db, position), saved=True)


def _grown(
    db: sqlite3.Connection,
    held: Held,
    head: LogPosition,
    ends: Mapping[int, int],
    additions: Additions,
    verdicts: Sequence[Verdict] = (),
) -> Change:
    topics = additions.save(held.cap)
    told = {entry.position.epoch: entry.position.seq for entry in additions.entries}
    save = held.unsaved.due(head) or additions.dropped > 0 or told != ends
    if save:
        held.unsaved.save(db, topics, ends)
    return Change(head, ends, topics, save, additions.entries, additions.size, verdicts)


def _verdict(batch: Batch, head: LogPosition) -> Verdict:
    if batch.through <= head:
        return "duplicate"
    if batch.after == head or (batch.after < head and _overlaps(batch, head)):
        return "applied"
    return "gap"


def _overlaps(batch: Batch, head: LogPosition) -> bool:
    """Whether our log ends inside the batch, at one of its entries: then the rest continues it."""
    return any(entry.position == head for entry in batch.entries)
