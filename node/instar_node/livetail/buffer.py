"""``LiveTailBuffer``: this machine's durable copy of the conversation, on the holder and on every standby."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from instar_node.clock import Clock
from instar_node.contracts import Database, HistoryItem, LogPosition
from instar_node.errors import InstarError
from instar_node.livetail import store
from instar_node.livetail.accounts import recover
from instar_node.livetail.behind import TopicBehind, count_behind
from instar_node.livetail.entry import (
    START,
    Batch,
    Line,
    TailEntry,
    TailManifest,
    TopicDigest,
    end_of_log,
    identity,
)
from instar_node.livetail.growth import Change, Held, Verdict, cut, follow, number
from instar_node.livetail.recent import RecentEntries
from instar_node.livetail.store import LINEAGE_KEPT, TopicState
from instar_node.livetail.unsaved import Unsaved

log = logging.getLogger("instar.livetail")

COALESCE_S = 0.010
"""How long staged lines wait for another write, to share its sync, before they get one of their own."""
BATCH_ENTRIES = 512
RETRY_S = 1.0
"""Pause before lines that the disk refused are written again."""


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
        self._unsaved = Unsaved(START)
        self._recent = RecentEntries(START)
        self._in_write: list[tuple[int, Line]] = []
        self._staged: list[tuple[int, Line]] = []
        self._writing: asyncio.Task[None] | None = None
        self._staged_ever = self._settled_ever = 0
        self._grown: list[Callable[[Sequence[TailEntry]], None]] = []
        self._moved = asyncio.Event()
        self._changing = asyncio.Lock()
        """Held from what a job starts from until the index shows what it came to."""

    @classmethod
    async def open(cls, database: Database, clock: Clock, cap_bytes: int) -> LiveTailBuffer:
        """Load the index of what the database holds. ``cap_bytes`` bounds the text kept of each topic."""
        buffer = cls(database, clock, cap_bytes)
        buffer._topics, buffer._lineage, buffer._unsaved = await database.read(recover)
        buffer._head = end_of_log(buffer._lineage)
        buffer._recent = RecentEntries(buffer._head)
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
            partial(store.newest_before, topic=topic, bound=bound, limit=limit),
            lambda line: line.topic_seq < bound,
        )
        return tuple(HistoryItem(line.role, line.text, line.at) for line in found[len(found) - limit :])

    async def messages(self, topic: str, after: int, limit: int) -> list[Line]:
        """Up to ``limit`` lines of a topic after ``topic_seq`` ``after``, in order. Includes every line
        staged before this call."""
        found = await self._lines(
            topic,
            partial(store.lines_after, topic=topic, after=after, limit=limit),
            lambda line: line.topic_seq > after,
        )
        return found[:limit]

    async def _lines(
        self, topic: str, durable: Callable[[sqlite3.Connection], list[Line]], wanted: Callable[[Line], bool]
    ) -> list[Line]:
        """Durable lines, and those still on their way to the disk, by ``topic_seq``."""
        staged = [
            line for _, line in (*self._in_write, *self._staged) if line.topic == topic and wanted(line)
        ]
        found = {identity(line): line for line in await self._database.read(durable)}
        for line in staged:  # one may be there twice: said again, or waiting to be written again
            found.setdefault(identity(line), line)
        return sorted(found.values(), key=lambda line: line.topic_seq)

    async def behind(self, position: LogPosition) -> list[TopicBehind]:
        """What a copy that ends at ``position`` lacks of the durable log; the topics with the most entries
        first. Of a copy that keeps up this is known at once."""
        lacking = self._recent.since(position)
        if lacking is None:
            found = await self._database.read(partial(store.behind, seq=position.seq))
        else:
            found = count_behind(entry.line for entry in lacking)
        return sorted(found, key=lambda topic: (-topic.entries, topic.topic))

    async def batch(self, after: LogPosition, max_bytes: int) -> Batch:
        """The next entries after ``after``, about ``max_bytes`` of text at most (but at least one)."""
        goal = self._head
        found = self._recent.since(after)
        if found is None:
            found = await self._database.read(
                partial(store.entries_after, seq=after.seq, limit=BATCH_ENTRIES)
            )
        found = found[:BATCH_ENTRIES]
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
            await self._change(partial(number, staged=staged), within_s=COALESCE_S)
        except InstarError as error:
            log.error("%d lines not yet written to the tail: %s", len(staged), error)
            return error.code == "database-closed"
        return True

    async def apply(self, batches: Sequence[Batch]) -> Sequence[Verdict]:
        """Standby: follow the holder. Of each batch: ``duplicate`` when all of it is held already, ``gap``
        when entries before it are missing (or other ones are held); then nothing of it was changed."""
        return (await asyncio.shield(self._change(partial(follow, batches=batches)))).verdicts

    async def truncate(self, position: LogPosition) -> None:
        """Standby: forget what comes after ``position``, to follow a holder whose log goes on differently."""
        await asyncio.shield(self._change(partial(cut, position=position)))

    async def _change(
        self, job: Callable[[sqlite3.Connection, Held], Change], within_s: float = 0.0
    ) -> Change:
        """Run a job that changes this copy. Jobs follow one another: each starts from what the one before it
        came to, as the index in memory has it. For the same reason this must not be cancelled: a write that
        has begun is not withdrawn."""
        async with self._changing:
            held = Held(self._head, self._topics, self._cap, self._unsaved)
            change = await self._database.write(lambda db: job(db, held), within_s)
            self._adopt(change)
        return change

    def _adopt(self, change: Change) -> None:
        """Bring the index in memory up to what a job has made durable."""
        if change.head < self._head:
            self._lineage = {epoch: seq for epoch, seq in self._lineage.items() if epoch < change.head.epoch}
            self._recent = RecentEntries(change.head)
        self._head = change.head
        self._lineage.update(change.ends)
        while len(self._lineage) > LINEAGE_KEPT:
            del self._lineage[min(self._lineage)]
        self._topics.update(change.topics)
        if change.saved:
            self._unsaved = Unsaved(change.head)
        else:
            self._unsaved.add(change.topics, change.ends, change.entries)
        self._recent.add(change.entries, change.size)
        self._moved.set()
        if change.entries:
            for callback in self._grown:
                callback(change.entries)

    async def reached(self, position: LogPosition) -> None:
        """Wait until the log extends to ``position`` at least."""
        while self._head < position:
            self._moved.clear()
            await self._moved.wait()

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
