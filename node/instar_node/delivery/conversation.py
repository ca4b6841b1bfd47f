"""The conversation as the ledger has it: messages and committed replies of a topic, in line order."""

from __future__ import annotations

import sqlite3
from typing import Literal

import msgspec

from instar_node.contracts import Database, HistoryItem
from instar_node.delivery.rows import MessageRow, public_key, reply_id

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


class Conversation:
    """Reads topics from this machine's own copy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lines(self, topic: str, after: int = 0, limit: int = 200) -> list[Line]:
        """Up to ``limit`` lines numbered above ``after``, oldest first."""
        return await self._database.read(lambda c: _page(c, topic, ">", after, "ASC", limit))

    async def history(self, topic: str, before: int, limit: int) -> tuple[HistoryItem, ...]:
        """The last ``limit`` lines numbered below ``before``, oldest first: what an agent is given."""
        if limit <= 0:
            return ()
        lines = await self._database.read(lambda c: _page(c, topic, "<", before, "DESC", limit))
        return tuple(HistoryItem(line.role, line.text, line.at) for line in lines if line.text != GONE)


def _page(
    connection: sqlite3.Connection, topic: str, side: str, bound: int, order: str, limit: int
) -> list[Line]:
    # side and order are our own constants; a topic's lines are found by the primary key either way.
    found = connection.execute(
        "SELECT row, part FROM lines CROSS JOIN messages USING (key)"  # noqa: S608
        f" WHERE topic = ? AND seq {side} ? ORDER BY seq {order} LIMIT ?",
        (topic, bound, limit),
    )
    lines = [_line(_decode_row(blob), part) for blob, part in found]
    return sorted((line for line in lines if line is not None), key=lambda line: line.seq)


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
