"""The conversation as the ledger has it: messages and committed replies of a topic, in line order."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from instar_node.contracts import Database, HistoryItem
from instar_node.delivery.log import ReplicatedLog
from instar_node.delivery.rows import MessageRow, join, public_key, reply_id
from instar_node.delivery.tables import lines_of

_decode_row = msgspec.msgpack.Decoder(MessageRow).decode


GONE = "(text no longer kept)"
"""Stands for a text that compaction dropped; an agent is not given such lines."""


class Line(msgspec.Struct, frozen=True):
    """One line of a topic. ``key`` of an agent line is its reply id; ``reply_to`` the answered message's
    public key; ``state`` the delivery state of a user's message."""

    seq: int
    role: Literal["user", "agent"]
    text: str
    at: str
    key: str
    reply_to: str | None
    epoch: int
    machine_id: str
    state: str | None


class Window(NamedTuple):
    """A part of a topic: lines numbered above ``bound``, or ``backwards`` from below it."""

    topic: str
    bound: int
    limit: int
    backwards: bool

    def __contains__(self, seq: object) -> bool:
        return isinstance(seq, int) and (seq < self.bound if self.backwards else seq > self.bound)


class Conversation:
    """Reads topics from this machine's own copy."""

    def __init__(self, database: Database, log: ReplicatedLog) -> None:
        self._database = database
        self._log = log

    async def lines(self, topic: str, after: int = 0, limit: int = 200) -> list[Line]:
        """Up to ``limit`` lines numbered above ``after``, oldest first."""
        return await self._page(Window(topic, after, limit, backwards=False))

    async def history(self, topic: str, before: int, limit: int) -> tuple[HistoryItem, ...]:
        """The last ``limit`` lines numbered below ``before``, oldest first: what an agent is given."""
        if limit <= 0:
            return ()
        lines = await self._page(Window(topic, before, limit, backwards=True))
        return tuple(HistoryItem(line.role, line.text, line.at) for line in lines if line.text != GONE)

    async def _page(self, window: Window) -> list[Line]:
        newer = self._log.state.unsaved.of_topic(window.topic)
        return await self._database.read(lambda connection: read_page(connection, window, newer))


def read_page(connection: sqlite3.Connection, window: Window, newer: Mapping[str, MessageRow]) -> list[Line]:
    """A page of the tables, and of the ``newer`` rows that they may not show yet."""
    rows: dict[tuple[int, str, int], MessageRow] = {}
    newest = dict(newer)
    for seq, key, part, blob in _saved(connection, window):
        row = _decode_row(blob)
        if key in newest:  # a round may have been written meanwhile: then the table has the newer one
            row = newest[key] = join(row, newest[key])
        rows[seq, key, part] = row
    for row in newest.values():
        for _, seq, key, part in lines_of(row):
            if seq in window:
                rows.setdefault((seq, key, part), row)
    places = sorted(rows, reverse=window.backwards)[: window.limit]
    found = [_line(rows[place], place[2]) for place in sorted(places)]
    return [line for line in found if line is not None]


def _saved(connection: sqlite3.Connection, window: Window) -> sqlite3.Cursor:
    # side and order are our own constants; a topic's lines are found by the primary key either way.
    side, order = ("<", "DESC") if window.backwards else (">", "ASC")
    return connection.execute(
        "SELECT seq, key, part, row FROM lines CROSS JOIN messages USING (key)"  # noqa: S608
        f" WHERE topic = ? AND seq {side} ? ORDER BY seq {order} LIMIT ?",
        (window.topic, window.bound, window.limit),
    )


def _line(row: MessageRow, part: int) -> Line | None:
    return user_line(row) if part == 0 else agent_line(row, part - 1)


def user_line(row: MessageRow) -> Line | None:
    """The message itself; ``None`` for a marker whose message is not known."""
    origin = row.origin
    if origin is None:
        return None
    key = public_key(row.key)
    text = GONE if row.compacted else origin.text
    return Line(origin.seq, "user", text, origin.at, key, None, origin.epoch, origin.machine, row.state)


def agent_line(row: MessageRow, part: int) -> Line | None:
    """One part of a committed answer; ``None`` while it is not committed."""
    if row.commit is None or row.reservation is None or part >= len(row.reservation.replies):
        return None
    return Line(
        row.commit.seq + part,
        "agent",
        GONE if row.compacted else row.reservation.replies[part],
        row.commit.at,
        reply_id(row.key, part),
        public_key(row.key),
        row.commit.epoch,
        row.reservation.machine,
        None,
    )
