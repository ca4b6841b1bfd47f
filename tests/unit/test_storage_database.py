"""The database: group commit, isolation of jobs, migrations, and clear refusals."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from instar_node.errors import InstarError
from instar_node.storage import database as database_module
from instar_node.storage import schema
from instar_node.storage.database import SqliteDatabase


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase.open(tmp_path / "mesh.db")
    await opened.write(sql("CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)"))
    yield opened
    await opened.close()


def sql(statement: str, *params: object) -> Callable[[sqlite3.Connection], None]:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute(statement, params)

    return job


def put(key: str) -> Callable[[sqlite3.Connection], None]:
    return sql("INSERT INTO t VALUES (?, 0)", key)


def keys(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT k FROM t ORDER BY k")]


class Gate:
    """A job that holds the writer until released, so that what is queued behind it forms one group."""

    def __init__(self, db: SqliteDatabase) -> None:
        self._open = threading.Event()
        self._entered = threading.Event()
        self.task = asyncio.create_task(db.write(self._wait))

    def _wait(self, connection: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._open.wait(10)

    async def entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, 10)

    def release(self) -> None:
        self._open.set()


async def queue_behind(gate: Gate, *writes: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    await gate.entered()
    tasks = [asyncio.create_task(write) for write in writes]
    await asyncio.sleep(0)  # let each reach the queue
    gate.release()
    return tasks


async def test_what_was_written_can_be_read(db: SqliteDatabase) -> None:
    assert await db.write(lambda c: c.execute("INSERT INTO t VALUES ('a', 1) RETURNING v").fetchone()[0]) == 1
    assert await db.read(keys) == ["a"]


async def test_writes_waiting_together_share_one_commit(db: SqliteDatabase, tmp_path: Path) -> None:
    statements: list[str] = []
    await db.write(lambda c: c.set_trace_callback(statements.append))
    gate = Gate(db)
    await asyncio.gather(*await queue_behind(gate, *(db.write(put(str(n))) for n in range(100))))
    assert statements.count("SAVEPOINT job") == 99  # a job with nothing before it can be undone without one
    assert statements.count("COMMIT") == 3  # the one that set the trace, the gate, and all the hundred


async def test_a_write_that_may_wait_shares_the_commit_of_the_next(db: SqliteDatabase) -> None:
    statements: list[str] = []
    await db.write(lambda c: c.set_trace_callback(statements.append))
    patient = asyncio.create_task(db.write(put("patient"), within_s=60))
    await asyncio.sleep(0)  # it reaches the queue
    await db.write(put("hasty"))
    await patient
    assert statements.count("COMMIT") == 2  # the one that set the trace, and both
    assert await db.read(keys) == ["hasty", "patient"]


async def test_what_a_group_had_no_room_for_is_written_next(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "MAX_GROUP", 2)
    gate = Gate(db)
    tasks = await queue_behind(gate, *(db.write(put(key)) for key in "abcde"))
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert await db.read(keys) == list("abcde")


async def test_a_write_that_may_wait_keeps_none_waiting_that_came_before_it(db: SqliteDatabase) -> None:
    gate = Gate(db)
    tasks = await queue_behind(gate, db.write(put("a")), db.write(put("b"), within_s=3_600))
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)


async def test_a_write_that_may_wait_is_made_when_nobody_else_writes(db: SqliteDatabase) -> None:
    await db.write(put("alone"), within_s=0.001)
    assert await db.read(keys) == ["alone"]


async def test_closing_waits_for_nobody_else_to_share_a_commit(tmp_path: Path) -> None:
    db = SqliteDatabase.open(tmp_path / "mesh.db")
    patient = asyncio.create_task(db.write(sql("CREATE TABLE t (k)"), within_s=60))
    await asyncio.sleep(0)
    await db.close()
    await patient


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "between", "last"])
async def test_a_failing_job_is_undone_alone(db: SqliteDatabase, place: int) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES ('half', 1)")
        raise ValueError("no")

    jobs = [put("a"), put("b")]
    jobs.insert(place, half)
    results = await asyncio.gather(
        *await queue_behind(Gate(db), *(db.write(job) for job in jobs)), return_exceptions=True
    )
    assert [number for number, result in enumerate(results) if isinstance(result, ValueError)] == [place]
    assert await db.read(keys) == ["a", "b"]


async def test_a_failing_job_that_is_alone_leaves_nothing(db: SqliteDatabase) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES ('half', 1)")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await db.write(half)
    assert await db.read(keys) == []


async def test_a_constraint_error_reaches_its_caller_as_it_is(db: SqliteDatabase) -> None:
    await db.write(put("a"))
    with pytest.raises(sqlite3.IntegrityError):
        await db.write(put("a"))


async def test_stop_iteration_in_a_job_does_not_hang_the_group(db: SqliteDatabase) -> None:
    def exhausted(connection: sqlite3.Connection) -> None:
        next(iter(()))

    gate = Gate(db)
    tasks = await queue_behind(gate, db.write(exhausted), db.write(put("a")))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], RuntimeError)
    assert await db.read(keys) == ["a"]


async def test_cancelled_waiters_break_nobody_and_their_write_stands(db: SqliteDatabase) -> None:
    gate = Gate(db)
    await gate.entered()
    gone, stays = asyncio.create_task(db.write(put("gone"))), asyncio.create_task(db.write(put("stays")))
    await asyncio.sleep(0)
    gone.cancel()
    gate.release()
    await stays
    assert gone.cancelled()
    assert await db.read(keys) == ["gone", "stays"]


async def test_a_group_that_cannot_commit_is_reported_to_every_caller(db: SqliteDatabase) -> None:
    def lose_the_transaction(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # what SQLite itself does on a full disk
        raise sqlite3.OperationalError("database or disk is full")

    gate = Gate(db)
    tasks = await queue_behind(gate, db.write(put("a")), db.write(lose_the_transaction), db.write(put("b")))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, sqlite3.OperationalError) for result in results)
    assert {str(result) for result in results} == {"database or disk is full"}, "the cause, not its effect"
    assert await db.read(keys) == []
    await db.write(put("c"))
    assert await db.read(keys) == ["c"]


async def test_a_transaction_lost_before_anything_was_done_in_it_fails_nobody_else(
    db: SqliteDatabase,
) -> None:
    def lose_the_transaction(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    gate = Gate(db)
    tasks = await queue_behind(gate, db.write(lose_the_transaction), db.write(put("b")))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [True, False]
    assert await db.read(keys) == ["b"]


@pytest.mark.parametrize("place", [0, 1])
async def test_what_was_lost_with_a_transaction_is_reported_so_though_the_job_hides_it(
    db: SqliteDatabase, place: int
) -> None:
    def hide_it(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")

    gate = Gate(db)
    jobs: list[Callable[[sqlite3.Connection], object]] = [put("a"), put("b")]
    jobs.insert(place, hide_it)
    tasks = await queue_behind(gate, *map(db.write, jobs))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [isinstance(result, sqlite3.OperationalError) for result in results]
    assert failed == {0: [True, False, False], 1: [True, True, True]}[place]
    assert await db.read(keys) == (["a", "b"] if place == 0 else [])
    await db.write(put("c"))
    assert "c" in await db.read(keys)


async def test_disk_full_is_said_so_and_passes(db: SqliteDatabase) -> None:
    pages = await db.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await db.write(sql(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(InstarError) as refusal:
        await db.write(put("x" * 100_000))
    assert refusal.value.code == "disk-full"
    await db.write(sql("PRAGMA max_page_count=100000"))
    await db.write(put("a"))
    assert await db.read(keys) == ["a"]


async def test_the_reader_cannot_write(db: SqliteDatabase) -> None:
    with pytest.raises(InstarError) as refusal:
        await db.read(put("a"))
    assert refusal.value.code == "database-failed"


async def test_a_read_does_not_wait_for_the_writer(db: SqliteDatabase) -> None:
    gate = Gate(db)
    await gate.entered()
    assert await db.read(keys) == []
    gate.release()
    await gate.task


async def test_close_finishes_what_is_queued_and_refuses_the_rest(tmp_path: Path) -> None:
    db = SqliteDatabase.open(tmp_path / "mesh.db")
    writes = [asyncio.create_task(db.write(sql(f"CREATE TABLE t{n} (a)"))) for n in range(20)]
    await asyncio.sleep(0)
    await db.close()
    await asyncio.gather(*writes)
    with pytest.raises(InstarError) as refusal:
        await db.read(keys)
    assert refusal.value.code == "database-closed"


async def test_closing_takes_the_write_ahead_log_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both connections closed at the same time would now and then leave it, as a crash does."""
    under_way, most, lock = 0, 0, threading.Lock()

    class Slow(sqlite3.Connection):
        def close(self) -> None:
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
            time.sleep(0.02)
            super().close()
            with lock:
                under_way -= 1

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **more, factory=Slow))
    db = SqliteDatabase.open(tmp_path / "mesh.db")
    await db.write(sql("CREATE TABLE t (k TEXT)"))
    await db.read(lambda c: None)
    await db.close()
    assert most == 1
    assert [file.name for file in tmp_path.iterdir()] == ["mesh.db"]


FILL = """
import asyncio, resource, signal, sys
from pathlib import Path
from instar_node.errors import InstarError
from instar_node.storage.database import SqliteDatabase
async def main():
    db = SqliteDatabase.open(Path(sys.argv[1]))
    await db.write(lambda c: c.execute("CREATE TABLE t (k TEXT)") and None)
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    for n in range(1_000):
        try:
            await db.write(lambda c: c.execute("INSERT INTO t VALUES (?)", (f"{n}" + "x" * 2_000,)) and None)
        except InstarError as error:
            print(n, error.code, error.message, error.hint, sep="|")
            break
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        Path(sys.argv[1]).with_name("ballast").unlink()
    await db.write(lambda c: c.execute("INSERT INTO t VALUES ('after')") and None)
    await db.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["limit", "tmpfs"])
async def test_a_disk_that_is_really_full_loses_nothing_confirmed_and_is_used_again_when_there_is_room(
    tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if how == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("mounting a small disk needs root")
        (folder / "ballast").write_bytes(b"x" * 1_200_000)
    path = folder / "mesh.db"
    try:
        done = subprocess.run(
            [sys.executable, "-c", FILL, str(path), how], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        confirmed, code, message, hint = done.stdout.strip().split("|")
        assert code == {"limit": "database-failed", "tmpfs": "disk-full"}[how]
        assert str(path) in message
        assert hint
        with sqlite3.connect(path) as connection:
            rows = [row[0].rstrip("x") for row in connection.execute("SELECT k FROM t ORDER BY rowid")]
        connection.close()
        assert rows == [*map(str, range(int(confirmed))), "after"]
        assert int(confirmed) > 10
    finally:
        if how == "tmpfs":
            subprocess.run(["umount", str(folder)], check=False)


VISIT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print([row[0] for row in connection.execute("SELECT k FROM t")])
connection.close()
"""


async def test_another_program_that_opens_and_closes_the_file_takes_nothing_away(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    """It would take the write-ahead log down with it if our locks did not tell it that the file is in use; we
    would go on writing to a file that has no name any more."""

    def visit() -> str:
        command = [sys.executable, "-c", VISIT, str(tmp_path / "mesh.db")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    await db.write(put("a"))
    await db.read(keys)
    assert await asyncio.to_thread(visit) == "['a']"
    await db.write(put("b"))
    assert await asyncio.to_thread(visit) == "['a', 'b']"


async def test_every_commit_is_synced(db: SqliteDatabase) -> None:
    assert await db.write(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2
    assert await db.write(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"


DIE = """
import asyncio, os, sys
from pathlib import Path
from instar_node.storage.database import SqliteDatabase
async def main():
    db = SqliteDatabase.open(Path(sys.argv[1]))
    await db.write(lambda c: c.execute("CREATE TABLE t (k TEXT)") and None)
    await asyncio.gather(*(db.write(lambda c, n=n: c.execute("INSERT INTO t VALUES (?)", (str(n),)) and None)
                           for n in range(50)))
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def test_what_was_confirmed_survives_kill_9_and_a_torn_log_tail(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    died = subprocess.run([sys.executable, "-c", DIE, str(path)], check=False)
    assert died.returncode == -9
    with (tmp_path / "mesh.db-wal").open("ab") as tail:
        tail.write(b"\x00garbage" * 300)
    db = SqliteDatabase.open(path)
    assert len(await db.read(keys)) == 50
    await db.close()


def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **steps: str) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir(exist_ok=True)
    for name, sql in steps.items():
        (folder / f"{name[1:]}.sql").write_text(sql)
    monkeypatch.setattr(schema.load_migrations, "__defaults__", (folder,))


async def version(path: Path) -> int:
    db = SqliteDatabase.open(path)
    found: int = await db.read(lambda c: c.execute("PRAGMA user_version").fetchone()[0])
    await db.close()
    return found


async def test_migrations_run_in_order_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.db"
    migrations(tmp_path, monkeypatch, _001_a="CREATE TABLE t (k); INSERT INTO t VALUES ('1');")
    assert await version(path) == 1
    migrations(tmp_path, monkeypatch, _002_b="INSERT INTO t SELECT k || '2' FROM t")
    assert await version(path) == 2
    assert await version(path) == 2
    db = SqliteDatabase.open(path)
    assert await db.read(keys) == ["1", "12"]
    await db.close()


async def test_a_failing_migration_leaves_the_version_and_schema_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mesh.db"
    migrations(tmp_path, monkeypatch, _001_a="CREATE TABLE t (k);", _002_b="CREATE TABLE u (k); BROKEN;")
    with pytest.raises(sqlite3.OperationalError, match="BROKEN"):
        SqliteDatabase.open(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("t",)]
    connection.close()


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=999")
    connection.close()
    with pytest.raises(InstarError) as refusal:
        SqliteDatabase.open(path)
    assert refusal.value.code == "database-too-new"
    assert "update" in refusal.value.hint


def test_shipped_migrations_load() -> None:
    assert all(step.sql.strip() for step in schema.load_migrations())


@pytest.mark.parametrize("damage", ["header", "middle", "not-a-database"])
def test_a_damaged_file_is_refused_naming_it_and_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "mesh.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (k TEXT PRIMARY KEY)")
    connection.executemany("INSERT INTO t VALUES (?)", [(f"{n:0100}",) for n in range(1_000)])
    connection.commit()
    connection.close()
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:64] = b"\x00" * 64
    elif damage == "middle":
        content[len(content) // 2 : len(content) // 2 + 8_192] = b"\xa5" * 8_192
    else:
        content = bytearray(b"this is a letter, not a database" * 100)
    path.write_bytes(content)
    with pytest.raises(InstarError) as refusal:
        SqliteDatabase.open(path)
    assert refusal.value.code == "database-damaged"
    assert str(path) in refusal.value.message
    assert f"mv {path}" in refusal.value.hint


def test_a_database_that_another_program_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mesh.db"
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InstarError) as refusal:
        SqliteDatabase.open(path)
    assert refusal.value.code == "database-locked"
    other.close()


def test_a_database_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstarError) as refusal:
        SqliteDatabase.open(tmp_path / "missing" / "mesh.db")
    assert refusal.value.code == "write-failed"


async def test_the_file_is_private(db: SqliteDatabase, tmp_path: Path) -> None:
    assert (tmp_path / "mesh.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="open files are listed in /proc")
async def test_no_temporary_file_is_made_for_a_write(db: SqliteDatabase) -> None:
    def job(connection: sqlite3.Connection) -> list[str]:
        connection.execute("UPDATE t SET v = upper(v)")  # every page, and the savepoint keeps what was there
        files = [entry.readlink().name for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        return [name for name in files if name.startswith("etilqs_")]

    await db.write(lambda c: c.executemany("INSERT INTO t (v) VALUES (?)", [("x" * 1_000,)] * 500))
    assert await db.write(job) == []
