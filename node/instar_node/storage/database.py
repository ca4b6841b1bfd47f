"""SQLite behind one writer thread with group commit, and one reader thread.

Durability is what the node's acknowledgements stand on, so every commit is synced (WAL,
``synchronous=FULL``). A sync costs milliseconds, so writes that arrive while one is under way share the
next: they run in one transaction, each so that it can be undone alone, and all are resolved after the one
sync. A write that is alone waits for nothing but its own sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from instar_node.storage.database_errors import database_closed, translated
from instar_node.storage.jobs import Job, JobQueue, deliver
from instar_node.storage.schema import check_integrity, migrate

T = TypeVar("T")
log = logging.getLogger("instar.storage")

MAX_GROUP = 256
"""Most writes that share one commit; bounds how long the first of a group waits for the last."""
CHECKPOINT_PAGES = 4_000
"""Size of the write-ahead log (16 MiB) at which a commit also copies it into the file. The same few pages are
written again and again, so a long log saves most of the copying; a start after a crash reads it in 50 ms."""
CACHED_STATEMENTS = 400
"""Prepared statements kept by each connection; more than the program has."""
WRITER_CACHE_KIB = 8_000
"""Pages the writer keeps: those at which the tables and indexes of a busy day grow. Of SQLite's own 2 MB many
are read again and again from the file."""
BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for a foreign process (a backup, a person's sqlite3) to let go."""


class SqliteDatabase:
    """Implements ``contracts.Database``. Open it with ``open``; all methods may be called from any loop."""

    def __init__(self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self._path = path
        self._writes = JobQueue()
        self._reads = JobQueue()
        self._connections = (reader, writer)
        self._threads = (
            threading.Thread(target=self._run_writer, args=(writer,), name="db-writer", daemon=True),
            threading.Thread(target=self._run_reader, args=(reader,), name="db-reader", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, path: Path) -> SqliteDatabase:
        """Create or open the database, bring its schema up to date and start the threads.

        Raises ``InstarError``: ``database-damaged``, ``database-locked``, ``database-too-new``, ``disk-full``
        or ``database-failed``, each with the way out.
        """
        connections: list[sqlite3.Connection] = []
        try:
            _create(path)
            writer = _connect(path)
            connections.append(writer)
            writer.execute(f"PRAGMA cache_size={-WRITER_CACHE_KIB}")
            check_integrity(writer, path)
            writer.execute("PRAGMA journal_mode=WAL")
            migrate(writer, path)
            reader = _connect(path)
            connections.append(reader)
            reader.execute("PRAGMA query_only=ON")
        except BaseException as error:
            for connection in connections:
                connection.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise translated(error, path) from error
            raise
        return cls(path, writer, reader)

    async def write(self, job: Callable[[sqlite3.Connection], T], within_s: float = 0.0) -> T:
        """Run ``job`` on the writer; resolves after its group's sync.

        A job that may wait ``within_s`` seconds waits so long for another one, to share its sync.

        An exception in the job undoes that job alone and is raised here. A job must neither commit nor roll
        back. Cancelling the wait does not withdraw the write. Raises ``InstarError`` when the disk is full,
        the file is locked or damaged, or the database is closed.
        """
        return await self._submit(self._writes, job, within_s)

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read-only job on the reader thread, against one snapshot of the last committed state."""
        return await self._submit(self._reads, job)

    async def close(self) -> None:
        """Finish what is queued, then close. Later calls are refused with ``database-closed``."""
        self._writes.close()
        self._reads.close()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        # One after the other: of two connections closed at the same time neither may take the write-ahead
        # log down, and one that is left makes the next start look like that after a crash.
        for connection in self._connections:
            await asyncio.to_thread(connection.close)

    async def _submit(
        self, queue: JobQueue, job: Callable[[sqlite3.Connection], T], within_s: float = 0.0
    ) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not queue.put(Job(job, loop, future), within_s):
            raise database_closed(self._path)
        return await future

    # -- the writer thread ------------------------------------------------------------------------------

    def _run_writer(self, connection: sqlite3.Connection) -> None:
        while group := self._writes.take(MAX_GROUP):
            try:
                self._commit_group(connection, group)
            except Exception as error:
                log.error("a group of %d writes failed: %s", len(group), error)
                _rollback(connection)
                for job in group:
                    job.fail(self._explained(error))
            deliver(group)

    def _commit_group(self, connection: sqlite3.Connection, group: list[Job]) -> None:
        """Run each job so that it alone is undone when it fails, and sync all that succeeded.

        The first needs no savepoint, because nothing came before it that its failure might take along. Most
        groups have only one.
        """
        first, *others = group
        connection.execute("BEGIN IMMEDIATE")
        if self._failed(connection, first) is not None:
            _rollback(connection)
            if not others:
                return
            connection.execute("BEGIN IMMEDIATE")
        for job in others:
            connection.execute("SAVEPOINT job")
            if (error := self._failed(connection, job)) is not None:
                if not connection.in_transaction:
                    raise error  # SQLite undid the whole group (disk full): none of it may be reported done
                connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
        connection.execute("COMMIT")

    def _failed(self, connection: sqlite3.Connection, job: Job) -> Exception | None:
        try:
            job.succeed(job.run(connection))
            if not connection.in_transaction:
                raise sqlite3.OperationalError("the job went on after SQLite had undone its transaction")
        except Exception as error:
            job.fail(self._explained(error))
            return error
        return None

    # -- the reader thread ------------------------------------------------------------------------------

    def _run_reader(self, connection: sqlite3.Connection) -> None:
        while group := self._reads.take(1):
            job = group[0]
            try:
                connection.execute("BEGIN")
                job.succeed(job.run(connection))
            except Exception as error:
                job.fail(self._explained(error))
            _rollback(connection)
            deliver(group)

    def _explained(self, error: Exception) -> Exception:
        return translated(error, self._path) if isinstance(error, sqlite3.Error) else error


def _create(path: Path) -> None:
    """Make the file, for this account alone, if there is none.

    One that is there is not opened: closing *any* descriptor of a file drops all POSIX locks that this
    process has on it (https://www.sqlite.org/howtocorrupt.html, 2.2), and another program that opens and
    closes the database would then take the write-ahead log down under us.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=CACHED_STATEMENTS,
    )
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone does not reach the platter
    connection.execute("PRAGMA foreign_keys=ON")
    # What a savepoint may need for going back stays in memory: no file to make and delete for each group, and
    # nothing of a conversation outside of the home.
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA journal_size_limit=67108864")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    return connection


def _rollback(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):  # then the next BEGIN fails, and says so to its callers
            connection.execute("ROLLBACK")
