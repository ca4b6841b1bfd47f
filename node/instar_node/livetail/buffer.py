"""``LiveTailBuffer``: this machine's durable copy of the conversation, on the holder and on every standby."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Literal

import msgspec

from instar_node.clock import Clock
from instar_node.contracts import Database, HistoryItem, LogPosition
from instar_node.errors import InstarError
from instar_node.livetail import store
from instar_node.livetail.accounts import TopicAccounts
from instar_node.livetail.entry import START, Line, TailEntry, TailManifest, TopicDigest
from instar_node.livetail.store import TopicState

log = logging.getLogger("instar.livetail")

COALESCE_S = 0.005
"""How long staged lines wait for another write, to share its sync, before they get one of their own."""
RECENT_ENTRIES = 2_048
RECENT_BYTES = 1 << 20
"""Newest entries kept in memory, so that feeding a machine that keeps up reads no disk."""
BATCH_ENTRIES = 512
RETRY_S = 1.0
"""Pause before lines that the disk refused are written again."""

Verdict = Literal["applied", "duplicate", "gap"]


class Batch(msgspec.Struct, frozen=True):
    """Entries that follow ``after``; with them a copy stands at ``through``. Numbers may be missing in
    between: those entries were dropped for space."""

    after: LogPosition
    entries: tuple[TailEntry, ...]
    through: LogPosition


class _Change(msgspec.Struct, frozen=True):
    """What a write job did."""

    head: LogPosition
    entries: tuple[TailEntry, ...] = ()
    topics: tuple[TopicState, ...] = ()
    verdict: Verdict = "applied"


class LiveTailBuffer:
    """One log of lines over all topics, capped in bytes for each topic, and an index of topics in memory.

    The holder ``stage``s lines, a standby ``apply``s batches; both read ``history`` and ``messages``.
    Open it with ``open``.
    """

    def __init__(self, database: Database, clock: Clock, cap_bytes: int) -> None:
        self._database = database
        self._clock = clock
        self._cap = cap_bytes
        self._head = START
        self._lineage: dict[int, int] = {}
        self._topics: dict[str, TopicState] = {}
        self._recent: deque[TailEntry] = deque()
        self._recent_bytes = 0
        self._recent_after = START
        self._in_write: list[tuple[int, Line]] = []
        self._staged: list[tuple[int, Line]] = []
        self._writing: asyncio.Task[None] | None = None
        self._staged_ever = self._settled_ever = 0
        self._grown: list[Callable[[Sequence[TailEntry]], None]] = []
        self._moved = asyncio.Event()

    @classmethod
    async def open(cls, database: Database, clock: Clock, cap_bytes: int) -> LiveTailBuffer:
        """Load the index of what the database holds. ``cap_bytes`` bounds the text kept of each topic."""
        buffer = cls(database, clock, cap_bytes)
        buffer._lineage = await database.read(store.lineage)
        buffer._head = buffer._recent_after = await database.read(store.head)
        buffer._topics = {state.topic: state for state in await database.read(store.topic_states)}
        return buffer

    # -- what is held ------------------------------------------------------------------------------------

    @property
    def head(self) -> LogPosition:
        """The end of the durable log."""
        return self._head

    @property
    def lineage(self) -> Mapping[int, int]:
        """Epoch -> last seq in it, of the durable log."""
        return self._lineage

    @property
    def cap_bytes(self) -> int:
        """Most bytes of text kept of one topic."""
        return self._cap

    def keep_at_least(self, cap_bytes: int) -> None:
        """Raise the cap to the holder's, so that this copy can equal the holder's."""
        self._cap = max(self._cap, cap_bytes)

    def topics(self) -> Sequence[TopicState]:
        """Topics with at least one line, in no order."""
        return [state for state in self._topics.values() if state.count]

    def topic(self, topic: str) -> TopicState:
        """What is held of one topic; an empty state for one never seen."""
        return self._topics.get(topic) or TopicState(topic)

    async def history(self, topic: str, before: int | None, limit: int) -> tuple[HistoryItem, ...]:
        """The ``limit`` last lines of a topic before ``topic_seq`` ``before`` (or the very last), oldest
        first: what the agent is given. Includes every line staged before this call."""
        bound = (1 << 62) if before is None else before
        found = await self._lines(
            topic,
            "AND topic_seq < ? ORDER BY topic_seq DESC, seq DESC LIMIT ?",
            (bound, limit),
            lambda line: line.topic_seq < bound,
        )
        return tuple(HistoryItem(line.role, line.text, line.at) for line in found[len(found) - limit :])

    async def messages(self, topic: str, after: int, limit: int) -> list[Line]:
        """Up to ``limit`` lines of a topic after ``topic_seq`` ``after``, in order. Includes every line
        staged before this call."""
        found = await self._lines(
            topic,
            "AND topic_seq > ? ORDER BY topic_seq, seq LIMIT ?",
            (after, limit),
            lambda line: line.topic_seq > after,
        )
        return found[:limit]

    async def _lines(
        self, topic: str, where: str, arguments: tuple[int, int], wanted: Callable[[Line], bool]
    ) -> list[Line]:
        """Durable lines, and those still on their way to the disk, by ``topic_seq``."""
        staged = [
            line for _, line in (*self._in_write, *self._staged) if line.topic == topic and wanted(line)
        ]
        found = await self._database.read(
            partial(store.lines, where=f"WHERE topic = ? {where}", arguments=(topic, *arguments))
        )
        known = {(line.topic_seq, line.role, line.key) for line in found}
        found += [line for line in staged if (line.topic_seq, line.role, line.key) not in known]
        return sorted(found, key=lambda line: line.topic_seq)

    async def behind(self, position: LogPosition) -> tuple[int, int, str | None]:
        """Entries after ``position``, their bytes, and when the oldest was said."""
        if position >= self._head:
            return 0, 0, None
        return await self._database.read(partial(store.behind, seq=position.seq))

    async def behind_by_topic(self, position: LogPosition, limit: int) -> list[tuple[str, int, int, str]]:
        """Of the topics with the most entries after ``position``: the topic, entries, bytes, and when the
        oldest was said."""
        if position >= self._head:
            return []
        return await self._database.read(partial(store.behind_by_topic, seq=position.seq, limit=limit))

    async def batch(self, after: LogPosition, max_bytes: int) -> Batch:
        """The next entries after ``after``, about ``max_bytes`` of text at most (but at least one)."""
        goal = self._head
        if after.seq >= self._recent_after.seq:
            newer = (entry for entry in self._recent if entry.position.seq > after.seq)
            found = list(islice(newer, BATCH_ENTRIES))
        else:
            found = await self._database.read(
                partial(store.entries_after, seq=after.seq, limit=BATCH_ENTRIES)
            )
        taken = _up_to(found, max_bytes)
        whole = len(taken) == len(found) < BATCH_ENTRIES
        last = taken[-1].position if taken else goal
        return Batch(after, tuple(taken), max(goal, last) if whole else last)

    # -- growing -----------------------------------------------------------------------------------------

    def on_growth(self, callback: Callable[[Sequence[TailEntry]], None]) -> None:
        """Be told of entries that have just become durable here, in order."""
        self._grown.append(callback)

    def stage(self, epoch: int, line: Line) -> None:
        """Holder: take a line said in this epoch; it is written within a few milliseconds, with others.

        A line held already is ignored. Never blocks.
        """
        self._staged.append((epoch, line))
        self._staged_ever += 1
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_staged())

    async def settled(self) -> None:
        """Wait until every line staged before this call is durable, whatever is staged meanwhile."""
        goal = self._staged_ever
        while self._settled_ever < goal and self._writing is not None:
            self._moved.clear()
            await self._moved.wait()

    async def _write_staged(self) -> None:
        try:
            while self._staged:
                self._in_write, self._staged = self._staged, []
                if await self._write(self._in_write):
                    self._settled_ever += len(self._in_write)
                    self._moved.set()
                else:
                    self._staged = self._in_write + self._staged
                    await self._clock.sleep(RETRY_S)
        finally:
            self._in_write, self._writing = [], None
            self._moved.set()

    async def _write(self, staged: Sequence[tuple[int, Line]]) -> bool:
        """Write staged lines; ``False`` when the disk refused and it is worth trying again."""
        try:
            job = partial(_number, staged=staged, cap=self._cap)
            change = await self._database.write(job, within_s=COALESCE_S)
        except InstarError as error:
            log.error("%d lines not yet written to the tail: %s", len(staged), error)
            return error.code == "database-closed"
        self._adopt(change)
        return True

    async def apply(self, batch: Batch) -> Verdict:
        """Standby: follow the holder. ``duplicate`` when all of it is held already, ``gap`` when entries
        before it are missing (or other ones are held): then nothing was changed."""
        change = await self._database.write(partial(_follow, batch=batch, cap=self._cap))
        self._adopt(change)
        return change.verdict

    async def truncate(self, position: LogPosition) -> None:
        """Standby: forget what comes after ``position``, to follow a holder whose log goes on differently."""

        def job(db: sqlite3.Connection) -> _Change:
            return _Change(position, (), tuple(store.truncate(db, position)))

        change = await self._database.write(job)
        self._lineage = {epoch: seq for epoch, seq in self._lineage.items() if epoch < position.epoch}
        self._recent.clear()
        self._recent_bytes, self._recent_after = 0, position
        if position == START:
            self._topics = {
                topic: msgspec.structs.replace(state, floor=0) for topic, state in self._topics.items()
            }
        self._adopt(change)

    async def reached(self, position: LogPosition) -> None:
        """Wait until the log extends to ``position`` at least."""
        while self._head < position:
            self._moved.clear()
            await self._moved.wait()

    def _adopt(self, change: _Change) -> None:
        """Bring the index in memory up to what a job has made durable."""
        self._head = change.head
        if change.head != START:
            self._lineage[change.head.epoch] = change.head.seq
        for state in change.topics:
            self._topics[state.topic] = state
        for entry in change.entries:
            self._lineage[entry.position.epoch] = entry.position.seq
            self._recent.append(entry)
            self._recent_bytes += len(entry.line.text)
        while len(self._recent) > RECENT_ENTRIES or self._recent_bytes > RECENT_BYTES:
            oldest = self._recent.popleft()
            self._recent_after = oldest.position
            self._recent_bytes -= len(oldest.line.text)
        self._moved.set()
        if change.entries:
            for callback in self._grown:
                callback(change.entries)

    # -- comparing ---------------------------------------------------------------------------------------

    async def manifest(self) -> TailManifest:
        """What this copy holds, after all that was staged is durable."""
        await self.settled()
        digests = (TopicDigest(s.topic, s.first, s.last, s.count, s.digest) for s in self.topics())
        return TailManifest(self._head, tuple(digests))

    async def differing(self, manifest: TailManifest) -> list[str]:
        """Topics of which this copy, where the other one begins and up to the manifest's position, does not
        hold exactly the same lines. What was said since the manifest was made does not count."""
        wrong = []
        for other in manifest.topics:
            own = self.topic(other.topic)
            held, theirs = (own.count, own.digest), (other.count, other.digest)
            more = own.first < other.first or self._head > manifest.position  # before it begins, or after
            if held != theirs and more:
                held = await self._database.read(
                    partial(
                        store.digest_between,
                        topic=other.topic,
                        first=other.first,
                        through=manifest.position.seq,
                    )
                )
            if held != theirs:
                wrong.append(other.topic)
        return wrong


def _up_to(entries: Sequence[TailEntry], max_bytes: int) -> Sequence[TailEntry]:
    total = 0
    for index, entry in enumerate(entries):
        total += len(entry.line.text)
        if total > max_bytes and index:
            return entries[:index]
    return entries


def _number(db: sqlite3.Connection, staged: Sequence[tuple[int, Line]], cap: int) -> _Change:
    """Write job: give staged lines their places at the end of the log."""
    before = head = store.head(db)
    accounts = TopicAccounts(db)
    added: list[tuple[TailEntry, bytes]] = []
    for epoch, line in staged:
        if epoch < head.epoch:
            log.warning(
                "a line of epoch %d came after epoch %d had begun; left to its holder", epoch, head.epoch
            )
        elif (digest := accounts.take(line)) is not None:
            head = LogPosition(epoch, head.seq + 1)
            added.append((TailEntry(head, line), digest))
    store.insert(db, added)
    entries = tuple(entry for entry, _ in added)
    store.move_head(db, before, [entry.position for entry in entries])
    return _Change(head, entries, accounts.settle(cap))


def _follow(db: sqlite3.Connection, batch: Batch, cap: int) -> _Change:
    """Write job: add a holder's batch if it continues this log."""
    head = store.head(db)
    if batch.through <= head:
        return _Change(head, verdict="duplicate")
    if not batch.after <= head or (batch.after < head and not _overlaps(batch, head)):
        return _Change(head, verdict="gap")
    fresh = [entry for entry in batch.entries if entry.position > head]
    accounts = TopicAccounts(db)
    taken = ((entry, accounts.take(entry.line)) for entry in fresh)
    added = [(entry, digest) for entry, digest in taken if digest is not None]
    store.insert(db, added)
    store.move_head(db, head, [*(entry.position for entry in fresh), batch.through])
    return _Change(batch.through, tuple(entry for entry, _ in added), accounts.settle(cap))


def _overlaps(batch: Batch, head: LogPosition) -> bool:
    """Whether our log ends inside the batch, at one of its entries: then the rest continues it."""
    return any(entry.position == head for entry in batch.entries)
