"""The replicated log of this machine: appends in order with group commit, and ranges read back.

One group of operations is under way at a time; what arrives meanwhile forms the next. So positions are
contiguous even when a write fails, and many messages share one sync.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from instar_node.contracts import Database, LogPosition
from instar_node.delivery import tables
from instar_node.delivery.entries import GENESIS, LogEntry, Mark
from instar_node.delivery.loading import load_state
from instar_node.delivery.state import LedgerState, Outcome, Totals
from instar_node.delivery.transaction import Transaction

T = TypeVar("T")
log = logging.getLogger("instar.delivery")

MAX_GROUP = 512
"""Most operations that share one transaction."""
RECENT_BYTES = 4 * 1024 * 1024
"""Newest entries kept in memory, so that a stream at the head never reads the disk."""
MARKS = 256
"""Epoch boundaries compared when two logs meet; logs that differ further back start from nothing."""


class _Operation:
    def __init__(
        self,
        run: Callable[[Transaction], Any],
        allowed: Callable[[], None],
        future: asyncio.Future[Any],
        key: str | None,
    ) -> None:
        self.key = key
        self.run = run
        self.allowed = allowed
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class ReplicatedLog:
    """The log and the state it comes to. All methods belong to the event loop."""

    def __init__(self, database: Database) -> None:
        self.state = LedgerState()
        self._database = database
        self._queue: deque[_Operation] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._first: list[Callable[[Outcome], None]] = []
        self._listeners: list[Callable[[Outcome], None]] = []
        self._recent: list[LogEntry] = []
        self._recent_bytes = 0
        self._recent_after = GENESIS.position

    async def load(self) -> None:
        """Read the state from the database; once, before anything else."""
        self.state = await self._database.read(load_state)
        self._forget_recent()

    def on_durable(self, callback: Callable[[Outcome], None]) -> None:
        """Be told of every durable transaction before all others, and before the next group goes to the
        writer: for what another machine waits for. To be short."""
        self._first.append(callback)

    def on_outcome(self, callback: Callable[[Outcome], None]) -> None:
        """Be told of every durable transaction, in order, before its callers are."""
        self._listeners.append(callback)

    def submit(
        self,
        run: Callable[[Transaction], T],
        allowed: Callable[[], None] = lambda: None,
        key: str | None = None,
    ) -> asyncio.Future[T]:
        """Run an operation on the ledger, in order of submission; the future resolves once it is durable.

        ``allowed`` is called on the event loop immediately before the operation goes to the writer and may
        refuse by raising. ``run`` works on the writer thread; it must raise before it changes anything.
        ``key`` is that of a message it asks for which is probably new.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(_Operation(run, allowed, future, key))
        if self._pump is None:
            self._pump = asyncio.create_task(self._run(), name="ledger-log")
        return future

    @property
    def busy(self) -> bool:
        """Whether operations are waiting or under way."""
        return self._pump is not None

    async def settle(self) -> None:
        """Wait until nothing is under way (for an orderly stop)."""
        while self._pump is not None:
            await asyncio.wait([self._pump])

    async def save(self) -> None:
        """Have all tables of the ledger show what the log says now."""
        await self.submit(Transaction.save)

    async def read_after(self, after: LogPosition, max_bytes: int) -> list[LogEntry]:
        """The next entries after a position that this log contains: at least one if there is one, else up
        to ``max_bytes``."""
        entries = self.newest_after(after, max_bytes)
        if entries is None:
            return await self._database.read(lambda c: tables.entries_after(c, after, max_bytes))
        return entries

    def newest_after(self, after: LogPosition, max_bytes: int) -> list[LogEntry] | None:
        """As ``read_after``, from memory; ``None`` when not all entries after that position are there."""
        if after < self._recent_after:
            return None
        first = last = bisect_right(self._recent, after, key=lambda entry: entry.position)
        size = 0
        while last < len(self._recent):
            size += self._recent[last].size
            if last > first and size > max_bytes:
                break
            last += 1
        return self._recent[first:last]

    async def marks(self) -> tuple[Mark, ...]:
        """The last mark of each epoch, newest first."""
        return tuple(await self._database.read(lambda c: tables.last_marks(c, MARKS)))

    async def contains(self, mark: Mark) -> bool:
        """Whether this log has exactly this entry."""
        return await self._database.read(lambda c: tables.mark_at(c, mark.position) == mark)

    async def totals_at(self, position: LogPosition) -> Totals:
        """Entries and bytes of this log up to a position."""
        return await self._database.read(lambda c: tables.totals_at(c, position))

    async def greatest_common(self, theirs: tuple[Mark, ...]) -> Mark:
        """The newest of the given marks that this log shares; the logs are equal up to it."""

        def job(connection: sqlite3.Connection) -> Mark:
            for mark in sorted(theirs, reverse=True):
                if tables.mark_at(connection, mark.position) == mark:
                    return mark
            return GENESIS

        return await self._database.read(job)

    # -- the writer -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while self._queue:
                if group := self._take():
                    await self._commit(group)
        finally:
            self._pump = None

    def _take(self) -> list[_Operation]:
        group: list[_Operation] = []
        while self._queue and len(group) < MAX_GROUP:
            operation = self._queue.popleft()
            try:
                operation.allowed()
            except Exception as error:
                operation.error = error
                operation.settle()
            else:
                group.append(operation)
        return group

    async def _commit(self, group: list[_Operation]) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await self._database.write(partial(_run_group, self.state, group))
        except Exception as error:
            log.error("%d ledger operations could not be written: %s", len(group), error)
            for operation in group:
                operation.error = error
        else:
            self.state.absorb(outcome)
            self._remember(outcome)
            self._tell(self._first, outcome)
        # The writer gets the next group first, so that it does not rest while everybody is told of this one.
        asyncio.get_running_loop().call_soon(self._announce, group, outcome)

    def _announce(self, group: list[_Operation], outcome: Outcome | None) -> None:
        if outcome is not None:
            self._tell(self._listeners, outcome)
        for operation in group:
            operation.settle()

    def _tell(self, listeners: list[Callable[[Outcome], None]], outcome: Outcome) -> None:
        for listener in listeners:
            try:
                listener(outcome)
            except Exception:
                log.exception("a listener of the ledger failed")

    # -- the newest entries -----------------------------------------------------------------------------

    def _remember(self, outcome: Outcome) -> None:
        if outcome.truncated:
            self._forget_recent()
            return
        self._recent += outcome.entries
        self._recent_bytes += sum(entry.size for entry in outcome.entries)
        if self._recent_bytes > RECENT_BYTES:
            self._drop_older_half()

    def _drop_older_half(self) -> None:
        half = len(self._recent) // 2
        dropped, self._recent = self._recent[: half + 1], self._recent[half + 1 :]
        self._recent_bytes -= sum(entry.size for entry in dropped)
        self._recent_after = dropped[-1].position

    def _forget_recent(self) -> None:
        self._recent, self._recent_bytes = [], 0
        self._recent_after = self.state.head.position


def _run_group(state: LedgerState, group: list[_Operation], connection: sqlite3.Connection) -> Outcome:
    tx = Transaction(connection, state)
    tx.look_up(operation.key for operation in group if operation.key is not None)
    for operation in group:
        before = tx.head
        try:
            operation.result, operation.error = operation.run(tx), None
        except Exception as error:
            if tx.head != before or not connection.in_transaction:
                raise  # half an operation must not be written, nor what follows without a transaction
            operation.error = error
    return tx.finish()
