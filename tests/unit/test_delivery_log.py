"""The replicated log: contiguous, hashed, whole after failures, and equal in memory and on disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from instar_node.contracts import LogPosition, Placement
from instar_node.delivery import log as log_module
from instar_node.delivery import steps, tables, unsaved
from instar_node.delivery.conversation import Window, read_page
from instar_node.delivery.entries import (
    GENESIS,
    LogEntry,
    Mark,
    Opening,
    Reported,
    check_follows,
    decode_body,
    make_entry,
)
from instar_node.delivery.log import ReplicatedLog
from instar_node.delivery.rows import Commit, Grant, MessageRow, Origin
from instar_node.delivery.steps import Incoming
from instar_node.delivery.transaction import Transaction
from instar_node.errors import InstarError
from instar_node.storage.database import SqliteDatabase

T = TypeVar("T")


class FailingDatabase:
    """A database whose next writes fail, on demand, after the job ran (as a full disk does at commit)."""

    def __init__(self, real: SqliteDatabase) -> None:
        self.real = real
        self.failures = 0
        self.groups = 0

    async def write(self, job: Callable[[sqlite3.Connection], T], within_s: float = 0.0) -> T:
        self.groups += 1
        fail, self.failures = self.failures > 0, max(0, self.failures - 1)

        def run(connection: sqlite3.Connection) -> T:
            result = job(connection)
            if fail:
                raise InstarError("disk-full", "no space left")
            return result

        return await self.real.write(run)

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await self.real.read(job)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[FailingDatabase]:
    real = SqliteDatabase.open(tmp_path / "mesh.db")
    yield FailingDatabase(real)
    await real.close()


@pytest.fixture
async def replicated(database: FailingDatabase) -> ReplicatedLog:
    opened = ReplicatedLog(database)
    await opened.load()
    await opened.submit(lambda tx: steps.open_epoch(tx, 1, "a", frozenset()))
    return opened


def message(key: str, text: str = "hi", topic: str = "t") -> Incoming:
    return Incoming(key, topic, text, "", "local", "", "", "a")


def record(key: str, text: str = "hi", epoch: int = 1) -> Callable[[Transaction], steps.Recorded]:
    return lambda tx: steps.record(tx, epoch, message(key, text))


async def everything(replicated: ReplicatedLog) -> list[LogEntry]:
    return await replicated.read_after(GENESIS.position, 1 << 30)


async def reloaded(database: FailingDatabase) -> ReplicatedLog:
    fresh = ReplicatedLog(database)
    await fresh.load()
    return fresh


def test_an_entry_must_follow_its_predecessor_and_carry_the_running_hash() -> None:
    opening = make_entry(GENESIS, 1, "open", Opening(GENESIS, "a", ()))
    first = make_entry(opening.mark, 1, "reported", Reported("b"))
    check_follows(opening.mark, first)
    for wrong in (
        make_entry(first.mark, 1, "reported", Reported("b")),
        make_entry(opening.mark, 2, "reported", Reported("b")),
    ):
        with pytest.raises(InstarError, match="does not follow"):
            check_follows(opening.mark, wrong)
    for field, value in (("body", b"\x91\xa1c"), ("kind", "open"), ("hash", b"0" * 32)):
        with pytest.raises(InstarError, match="hash does not match"):
            check_follows(opening.mark, msgspec.structs.replace(first, **{field: value}))
    elsewhere = Mark(1, 1, b"1" * 32)
    with pytest.raises(InstarError, match="hash does not match"):
        check_follows(elsewhere, first)


def test_an_entry_that_this_version_cannot_read_is_refused() -> None:
    entry = make_entry(GENESIS, 1, "open", Opening(GENESIS, "a", ()))
    with pytest.raises(InstarError, match="not known to this version"):
        decode_body(msgspec.structs.replace(entry, kind="teleported"))
    with pytest.raises(InstarError, match=r"log entry 1\.1"):
        decode_body(msgspec.structs.replace(entry, body=b"\xc1"))


@pytest.mark.parametrize("number", [-1, 1 << 63])
def test_an_entry_that_the_tables_could_never_show_is_refused(number: int) -> None:
    opening = make_entry(GENESIS, 1, "open", Opening(GENESIS, "a", ()))
    origin = Origin(1, number, "t", "hi", "", "local", "", "", "a")
    commit = Commit(1, number, "digest", "", "a")
    for row in (MessageRow("k", origin=origin), MessageRow("k", commit=commit)):
        with pytest.raises(InstarError, match="log entry 1\\.2"):
            decode_body(make_entry(opening.mark, 1, "joined", row))


async def test_operations_that_arrive_together_share_one_write(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    before = database.groups
    await asyncio.gather(*(replicated.submit(record(f"k{n}")) for n in range(100)))
    assert database.groups - before <= 2
    assert [e.seq for e in await everything(replicated)] == list(range(1, 102))


async def test_a_failed_write_leaves_no_gap_and_no_trace(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    await replicated.submit(record("before"))
    database.failures = 1
    with pytest.raises(InstarError, match="no space left"):
        await replicated.submit(record("lost"))
    assert "lost" not in replicated.state.open
    await replicated.submit(record("after"))
    assert [e.seq for e in await everything(replicated)] == [1, 2, 3]
    assert replicated.state.topics["t"].seq == 2
    fresh = await reloaded(database)
    assert set(fresh.state.open) == {"before", "after"}
    assert fresh.state.head == replicated.state.head


async def test_a_refused_step_does_not_harm_its_neighbours(replicated: ReplicatedLog) -> None:
    results = await asyncio.gather(
        replicated.submit(record("k", "one")),
        replicated.submit(record("k", "two")),
        replicated.submit(record("j", "three")),
        return_exceptions=True,
    )
    assert isinstance(results[1], InstarError)
    assert results[1].code == "key-reused"
    assert set(replicated.state.open) == {"k", "j"}


async def test_half_an_operation_is_never_written(replicated: ReplicatedLog) -> None:
    def half(tx: Transaction) -> None:
        steps.record(tx, 1, message("half"))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await replicated.submit(half)
    assert replicated.state.open == {}
    assert len(await everything(replicated)) == 1


async def test_an_operation_with_which_sqlite_undid_the_whole_group_takes_the_group_along(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    """What the others of its group add would be written beside any transaction: entries on the disk that
    memory does not know, in whose places nothing can be written before the next start."""

    def unreadable(tx: Transaction) -> None:
        tx._connection.execute("ROLLBACK")  # what SQLite itself does when a page cannot be read
        raise sqlite3.OperationalError("disk I/O error")

    group = (replicated.submit(record("k")), replicated.submit(unreadable), replicated.submit(record("j")))
    results = await asyncio.gather(*group, return_exceptions=True)
    assert all(isinstance(result, sqlite3.OperationalError) for result in results)
    assert len(await everything(await reloaded(database))) == 1
    await replicated.submit(record("after"))
    assert set((await reloaded(database)).state.open) == {"after"}


async def test_what_is_not_allowed_any_more_is_not_written(replicated: ReplicatedLog) -> None:
    def refuse() -> None:
        raise InstarError("not-awake", "no")

    with pytest.raises(InstarError, match="no"):
        await replicated.submit(record("k"), refuse)
    assert len(await everything(replicated)) == 1


async def test_the_disk_holds_the_same_state_as_the_memory(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    for n in range(5):
        await replicated.submit(record(f"k{n}"))
    await replicated.submit(lambda tx: steps.begin(tx, 1, "k0", Grant(1, 1)))
    await replicated.submit(lambda tx: steps.reserve(tx, 1, "k0", Grant(1, 1), ("x", "y"), "a"))
    digest = replicated.state.open["k0"].reservations[0].digest
    await replicated.submit(lambda tx: steps.commit(tx, 1, "k0", digest, "now", "a"))
    await replicated.submit(lambda tx: steps.place(tx, 1, Placement("t", "a", 1, 1, "placed")))
    fresh, state = await reloaded(database), replicated.state
    assert fresh.state.open == state.open
    assert fresh.state.topics == state.topics
    assert fresh.state.placements == state.placements
    assert (fresh.state.head, fresh.state.totals) == (state.head, state.totals)
    assert state.topics["t"].seq == 7
    assert state.topics["t"].answered_by == "a"


@pytest.mark.parametrize("bound", ["ROUND_ENTRIES", "ROUND_BYTES"])
async def test_what_a_start_applies_again_is_bounded(
    replicated: ReplicatedLog, database: FailingDatabase, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(unsaved, bound, {"ROUND_ENTRIES": 10, "ROUND_BYTES": 2_000}[bound])
    behind = []
    for n in range(30):
        await replicated.submit(record(f"k{n}", "x" * 150))
        saved = await database.read(lambda c: tables.entries_after(c, tables.saved_to(c)))
        behind.append(len(saved))
        assert len(replicated.state.unsaved.changes) <= behind[-1] < 10
    assert max(behind) > 5, "not with each message"
    assert behind.count(0) > 1
    assert (await reloaded(database)).state.open == replicated.state.open


async def test_a_round_that_could_not_be_written_is_written_with_the_next_group(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    await replicated.submit(record("before"))
    database.failures = 1
    with pytest.raises(InstarError, match="no space left"):
        await replicated.save()
    assert await database.read(tables.count_saved) == 0
    await replicated.save()
    assert await database.read(tables.count_saved) == 1
    assert not replicated.state.unsaved.rows


async def test_a_message_that_is_numbered_anew_while_it_is_read_is_read_once(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    key = "local:t:1"
    await replicated.submit(record(key))
    just_before = replicated.state.unsaved.of_topic("t")
    origin = just_before[key].origin
    assert origin is not None
    elsewhere = MessageRow(key, origin=msgspec.structs.replace(origin, epoch=2, seq=9))
    await replicated.submit(lambda tx: steps.adopt(tx, 1, "b", [elsewhere], []))
    window = Window("t", 0, 10, backwards=False)
    page = await database.read(lambda c: read_page(c, window, just_before))
    assert [line.seq for line in page] == [2]


async def test_a_page_is_as_long_as_asked_for_wherever_its_lines_are(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    async def pages() -> list[list[int]]:
        newer = replicated.state.unsaved.of_topic("t")
        windows = [Window("t", 1, 3, backwards=False), Window("t", 6, 3, backwards=True)]
        found = [await database.read(lambda c, w=w: read_page(c, w, newer)) for w in windows]  # type: ignore[misc]
        return [[line.seq for line in page] for page in found]

    for n in range(3):
        await replicated.submit(record(f"local:t:{n}"))
    await replicated.save()
    for n in range(3, 6):
        await replicated.submit(record(f"local:t:{n}"))
    assert await pages() == [[2, 3, 4], [3, 4, 5]]
    await replicated.save()
    assert await pages() == [[2, 3, 4], [3, 4, 5]]


async def test_an_answer_that_is_numbered_anew_is_read_once(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    """A holder of a later epoch committed the same answer too; the message keeps its number."""
    key = "local:t:1"
    await replicated.submit(record(key))
    await replicated.submit(lambda tx: steps.answer(tx, 1, key, Grant(1, 1), ("yes",), "a", "now", "a"))
    await replicated.save()
    row = await database.read(lambda c: tables.load_row(c, key))
    assert row is not None
    assert row.commit is not None
    again = msgspec.structs.replace(row, commit=msgspec.structs.replace(row.commit, epoch=2, seq=9))
    await replicated.submit(lambda tx: steps.adopt(tx, 1, "b", [again], []))
    for state in (replicated.state, (await reloaded(database)).state):
        newer = state.unsaved.of_topic("t")
        page = await database.read(lambda c, newer=newer: read_page(c, Window("t", 0, 10, False), newer))  # type: ignore[misc]
        assert [(line.seq, line.role) for line in page] == [(1, "user"), (3, "agent")]


async def test_ranges_read_from_memory_and_from_disk_are_the_same(
    replicated: ReplicatedLog, database: FailingDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "RECENT_BYTES", 4_000)
    for n in range(40):
        await replicated.submit(record(f"k{n}", "x" * 100))
    fresh = await reloaded(database)
    entries = await everything(fresh)
    assert [e.seq for e in entries] == list(range(1, 42))
    for start in entries:
        from_disk = await fresh.read_after(start.position, 1_000)
        assert await replicated.read_after(start.position, 1_000) == from_disk
        assert sum(e.size for e in from_disk) <= 1_000
    assert await replicated.read_after(entries[-1].position, 1_000) == []
    assert len(await replicated.read_after(entries[3].position, 1)) == 1


async def test_cutting_the_log_keeps_the_rows_and_notes_them_as_orphans(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    await replicated.submit(record("kept"))
    common = replicated.state.head
    await replicated.submit(record("cut"))
    await replicated.submit(lambda tx: steps.place(tx, 1, Placement("t", "b", 1, 1, "pinned")))
    assert await replicated.submit(lambda tx: tx.truncate(common)) == 2
    assert replicated.state.head == common
    assert set(replicated.state.open) == {"kept", "cut"}
    rows, placements, more = await replicated.submit(lambda tx: tx.orphans())
    assert [row.key for row in rows] == ["cut"]
    assert [p.owner for p in placements] == ["b"]
    assert more is None
    assert (await reloaded(database)).state.totals == replicated.state.totals
    assert (await replicated.read_after(GENESIS.position, 1 << 20))[-1].mark == common


async def test_a_new_epoch_logs_again_what_was_cut_off_and_never_came_back(replicated: ReplicatedLog) -> None:
    await replicated.submit(record("kept"))
    common = replicated.state.head
    await replicated.submit(record("cut"))
    await replicated.submit(lambda tx: tx.truncate(common))
    await replicated.submit(lambda tx: steps.open_epoch(tx, 2, "a", frozenset({"c"})))
    entries = await replicated.read_after(common.position, 1 << 20)
    bodies = [decode_body(entry) for entry in entries]
    rows = [(body.key, body.unheard) for body in bodies if isinstance(body, MessageRow)]
    assert [e.kind for e in entries] == ["open"] + ["joined"] * len(rows)
    assert rows[0] == ("cut", ())
    assert sorted(rows[1:]) == [("cut", ("c",)), ("kept", ("c",))]
    assert replicated.state.incomplete == {"c"}
    assert (await replicated.submit(lambda tx: tx.orphans()))[0] == []


async def test_what_is_logged_again_keeps_the_order_in_which_it_was_said(replicated: ReplicatedLog) -> None:
    common = replicated.state.head
    for key in ("said first", "and second", "last"):
        await replicated.submit(record(key))
    await replicated.submit(lambda tx: tx.truncate(common))
    await replicated.submit(lambda tx: steps.open_epoch(tx, 2, "a", frozenset()))
    rows = await replicated.submit(lambda tx: tx.open_rows())
    assert [row.key for row in rows] == ["said first", "and second", "last"]


async def test_orphans_are_handed_up_in_pages(replicated: ReplicatedLog) -> None:
    common = replicated.state.head
    for n in range(7):
        await replicated.submit(record(f"k{n}", "x" * 1_000))
    await replicated.submit(lambda tx: tx.truncate(common))
    after: tuple[str, str] | None = ("", "")
    pages = []
    while after is not None:
        start = after
        rows, _, after = await replicated.submit(lambda tx, start=start: tx.orphans(start, 2_000))  # type: ignore[misc]
        pages.append([row.key for row in rows])
    assert [key for page in pages for key in page] == [f"k{n}" for n in range(7)]
    assert max(map(len, pages)) == 2


async def test_logs_meet_at_the_newest_mark_they_share(replicated: ReplicatedLog, tmp_path: Path) -> None:
    other = ReplicatedLog(SqliteDatabase.open(tmp_path / "other.db"))
    await other.load()
    await replicated.submit(record("shared"))
    shared = await everything(replicated)
    await other.submit(lambda tx: tx.ingest(shared))
    assert other.state.head == replicated.state.head
    await replicated.submit(record("ours"))
    await other.submit(lambda tx: steps.open_epoch(tx, 2, "b", frozenset()))
    await other.submit(record("theirs", epoch=2))
    theirs = await other.submit(lambda tx: tx.marks([shared[1].position, LogPosition(1, 9)], 10))
    assert await replicated.greatest_common(tuple(theirs)) == shared[-1].mark
    assert await replicated.greatest_common(()) == GENESIS


async def test_an_entry_out_of_place_changes_nothing(replicated: ReplicatedLog, tmp_path: Path) -> None:
    other = ReplicatedLog(SqliteDatabase.open(tmp_path / "other.db"))
    await other.load()
    await replicated.submit(record("one"))
    await replicated.submit(record("two"))
    opening, one, two = await everything(replicated)
    with pytest.raises(InstarError, match="does not follow"):
        await other.submit(lambda tx: tx.ingest([opening, two]))
    assert other.state.head == GENESIS
    await other.submit(lambda tx: tx.ingest([opening, one, two]))
    assert other.state.head == replicated.state.head
    assert set(other.state.open) == {"one", "two"}


async def test_the_epoch_of_another_machine_cannot_be_opened_again(replicated: ReplicatedLog) -> None:
    for epoch, machine in ((1, "b"), (0, "a")):
        with pytest.raises(InstarError, match="already in epoch 1"):
            await replicated.submit(
                lambda tx, e=epoch, m=machine: steps.open_epoch(tx, e, m, frozenset())  # type: ignore[misc]
            )
    before = replicated.state.head
    await replicated.submit(lambda tx: steps.open_epoch(tx, 1, "a", frozenset()))
    assert replicated.state.head == before


async def test_missing_machines_are_remembered_until_they_report(
    replicated: ReplicatedLog, database: FailingDatabase
) -> None:
    await replicated.submit(lambda tx: steps.open_epoch(tx, 2, "a", frozenset({"b", "c"})))
    await replicated.submit(lambda tx: steps.report(tx, 2, "b"))
    assert replicated.state.incomplete == {"c"}
    fresh = await reloaded(database)
    assert fresh.state.incomplete == {"c"}
    assert await fresh.totals_at(fresh.state.head.position) == fresh.state.totals
    assert await database.read(lambda c: tables.load_opening(c, 2)) == ("a", frozenset({"c"}))
