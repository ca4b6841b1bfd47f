"""A home written by an older version is brought up to date with all that it holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar_node.clock import SystemClock
from instar_node.contracts import Placement
from instar_node.delivery import steps
from instar_node.delivery.conversation import Conversation
from instar_node.delivery.log import ReplicatedLog
from instar_node.delivery.rows import Grant, MessageRow, Rank, Status
from instar_node.delivery.steps import Incoming
from instar_node.delivery.transaction import Transaction
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.entry import Line
from instar_node.storage import schema
from instar_node.storage.database import SqliteDatabase

CAP = 10_000
BEFORE_LINES = 6
"""The last step of the schema in which replies and messages had trees of their own."""


def say(tx: Transaction, key: str, replies: tuple[str, ...], done: bool) -> None:
    """A message, its answer, and perhaps that the answer arrived."""
    topic = key.split(":")[1]
    grant = Grant(1, tx.next_seq(1))
    steps.record(tx, 1, Incoming(key, topic, f"what is {key}?", "Ada", "local", "2026-01-01", key, "a"))
    steps.begin(tx, 1, key, grant)
    row = steps.reserve(tx, 1, key, grant, replies, "a")
    if done and row.reservation is not None:
        steps.commit(tx, 1, key, row.reservation.digest, "2026-01-02", "a")


async def fill(path: Path) -> None:
    """A home of this version, with all rounds written: answers in one part, in two, in none, one that was not
    sent, a marker without its message, a placement, and the tail."""
    database = SqliteDatabase.open(path)
    log = ReplicatedLog(database)
    await log.load()
    await log.submit(lambda tx: steps.open_epoch(tx, 1, "a", frozenset()))
    for key, replies, done in (
        ("local:t:1", ("one",), True),
        ("local:u:2", ("one", "two"), True),
        ("local:t:3", (), True),
        ("local:t:4", ("waits",), False),
    ):
        await log.submit(lambda tx, said=(key, replies, done): say(tx, *said))
    marker = MessageRow("local:t:5", Status(Rank.COMMITTED, 1, 1))
    await log.submit(lambda tx: steps.adopt(tx, 1, "b", [marker], [Placement("t", "a", 1, 1, "placed")]))
    await log.save()
    tail = await LiveTailBuffer.open(database, SystemClock(), CAP)
    for n in range(1, 30):
        role: Any = "user" if n % 2 else "agent"
        tail.stage(1, Line("tu"[n % 2], n, role, f"line {n}", "2026-01-01", f"k{n}", None, "a", 1))
    await tail.settled()
    await database.close()


def write_as_before(new: Path, old: Path, version: int) -> list[str]:
    """The same home as a program of this schema wrote it; returns the tables that it had."""
    with closing(sqlite3.connect(old, isolation_level=None)) as db:
        schema.migrate(db, old, schema.load_migrations()[:version])
        db.execute("ATTACH ? AS new", (str(new),))
        known = {name for (name,) in db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'")}
        by_place = {"messages", "replies"} if version <= BEFORE_LINES else set()
        for table in known - by_place:
            columns = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            db.execute(f"DELETE FROM {table}")
            db.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}")
        if by_place:
            write_messages_by_place(db)
    return sorted(known - {"replies"} | {"lines"})


def write_messages_by_place(db: sqlite3.Connection) -> None:
    """As the schema before ``lines`` had them."""
    for key, is_open, blob in db.execute("SELECT key, open, row FROM new.messages").fetchall():
        row = msgspec.msgpack.decode(blob, type=MessageRow)
        place = ("", 0) if row.origin is None else (row.origin.topic, row.origin.seq)
        db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", (key, *place, is_open, blob))
        if row.origin is not None and row.commit is not None and row.reservation is not None:
            for part in range(len(row.reservation.replies)):
                line = (key, part, row.origin.topic, row.commit.seq + part)
                db.execute("INSERT INTO replies VALUES (?, ?, ?, ?)", line)


def content(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as db:
        schema_rows = db.execute("SELECT name, type FROM sqlite_schema ORDER BY name").fetchall()
        tables = [name for name, kind in schema_rows if kind == "table"]
        return {"schema": schema_rows} | {
            table: sorted(db.execute(f"SELECT * FROM {table}").fetchall()) for table in tables
        }


@pytest.mark.parametrize("version", range(1, len(schema.load_migrations())))
async def test_a_home_of_an_older_version_holds_the_same_after_it_was_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    monkeypatch.setattr("instar_node.livetail.unsaved.ROUND_ENTRIES", 1)
    await fill(new)
    had = write_as_before(new, old, version)
    database = SqliteDatabase.open(old)
    log = ReplicatedLog(database)
    await log.load()
    lines = await Conversation(database, log).lines("u")
    tail = await LiveTailBuffer.open(database, SystemClock(), CAP)
    history = await tail.history("t", None, 3)
    await database.close()
    assert list(log.state.open) == ["local:t:4"]
    assert log.state.head.seq > 1
    assert not log.state.unsaved.changes
    assert [(line.seq, line.text) for line in lines] == [(1, "what is local:u:2?"), (2, "one"), (3, "two")]
    if "tail_entries" in had:
        assert [item.text for item in history] == ["line 24", "line 26", "line 28"]
    brought, fresh = content(old), content(new)
    assert brought["schema"] == fresh["schema"]
    for table in (*had, "ledger_saved"):
        assert brought[table] == fresh[table], table
