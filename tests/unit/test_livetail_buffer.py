"""The durable copy of the conversation: order, repetition, space, comparison, restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar_node.clock import SystemClock
from instar_node.contracts import HistoryItem, LogPosition
from instar_node.errors import InstarError
from instar_node.livetail import store
from instar_node.livetail.accounts import recover
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.entry import (
    START,
    Batch,
    Line,
    TailEntry,
    common_point,
    line_digest,
    set_digest,
)
from instar_node.livetail.store import LINEAGE_KEPT
from instar_node.storage.database import SqliteDatabase
from tests.unit.fakes_mesh import eventually

P = LogPosition


def line(n: int, topic: str = "42", text: str = "", epoch: int = 1) -> Line:
    role: Literal["user", "agent"] = "user" if n % 2 else "agent"
    return Line(
        topic, n, role, text or f"line {n}", f"2026-01-01T00:00:{n % 60:02}Z", f"k{n}", None, "m1", epoch
    )


async def opened(path: Path, cap: int = 10_000) -> LiveTailBuffer:
    return await LiveTailBuffer.open(SqliteDatabase.open(path), SystemClock(), cap)


@pytest.fixture
async def holder(tmp_path: Path) -> AsyncIterator[LiveTailBuffer]:
    buffer = await opened(tmp_path / "holder.db")
    yield buffer
    await buffer._database.close()  # type: ignore[attr-defined]


@pytest.fixture
async def standby(tmp_path: Path) -> AsyncIterator[LiveTailBuffer]:
    buffer = await opened(tmp_path / "standby.db")
    yield buffer
    await buffer._database.close()  # type: ignore[attr-defined]


async def say(buffer: LiveTailBuffer, *numbers: int, epoch: int = 1, topic: str = "42") -> None:
    for n in numbers:
        buffer.stage(epoch, line(n, topic, epoch=epoch))
    await buffer.settled()


async def copy(source: LiveTailBuffer, target: LiveTailBuffer) -> None:
    """Feed all that follows the target's end."""
    while target.head < source.head:
        assert await target.apply([await source.batch(target.head, 200)]) == ["applied"]


async def numbers(buffer: LiveTailBuffer, topic: str = "42") -> list[int]:
    return [found.topic_seq for found in await buffer.messages(topic, 0, 1_000)]


async def test_lines_get_places_in_the_order_they_were_said(holder: LiveTailBuffer) -> None:
    seen: list[LogPosition] = []
    holder.on_growth(lambda entries: seen.extend(entry.position for entry in entries))
    await say(holder, 1, 2)
    await say(holder, 3, epoch=2)
    assert seen == [P(1, 1), P(1, 2), P(2, 3)]
    assert holder.head == P(2, 3)
    assert holder.lineage == {1: 2, 2: 3}


async def test_a_line_said_twice_is_held_once(holder: LiveTailBuffer) -> None:
    for _ in range(2):
        holder.stage(1, line(1))
    assert await numbers(holder) == [1], "also before it is written"
    await holder.settled()
    await say(holder, 1, epoch=2)
    assert await numbers(holder) == [1]
    assert holder.head == P(1, 1)


async def test_messages_of_two_channels_may_have_the_same_key(holder: LiveTailBuffer) -> None:
    holder.stage(1, line(1))
    holder.stage(1, msgspec.structs.replace(line(1), topic_seq=3))
    assert await numbers(holder) == [1, 3]
    await holder.settled()
    assert await numbers(holder) == [1, 3]


async def test_what_was_just_said_is_read_back_at_once(
    holder: LiveTailBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, disk = holder._database.write, asyncio.Event()

    async def slow_write(job: Any, within_s: float = 0.0) -> Any:
        await disk.wait()
        return await write(job)

    monkeypatch.setattr(holder._database, "write", slow_write)
    holder.stage(1, line(1))
    holder.stage(1, line(2))
    assert [found.text for found in await holder.messages("42", 1, 10)] == ["line 2"]
    assert [item.text for item in await holder.history("42", None, 10)] == ["line 1", "line 2"]
    assert holder.head == START
    disk.set()
    await holder.settled()
    assert holder.head == P(1, 2)


async def test_history_is_the_last_lines_before_a_number_oldest_first(holder: LiveTailBuffer) -> None:
    await say(holder, 1, 2, 3, 4, 5)
    assert [item.text for item in await holder.history("42", 5, 2)] == ["line 3", "line 4"]
    assert (await holder.history("42", 2, 9)) == (HistoryItem("user", "line 1", "2026-01-01T00:00:01Z"),)
    assert await holder.history("42", None, 0) == ()
    assert await holder.history("unseen", None, 9) == ()


async def test_messages_pages_through_a_topic(holder: LiveTailBuffer) -> None:
    await say(holder, 1, 2, 3, 4, 5)
    page = await holder.messages("42", 2, 2)
    assert [found.topic_seq for found in page] == [3, 4]
    assert page[0] == line(3)


async def test_a_copy_follows_and_repetition_changes_nothing(
    holder: LiveTailBuffer, standby: LiveTailBuffer
) -> None:
    await say(holder, 1, 2, 3)
    batch = await holder.batch(START, 10_000)
    assert await standby.apply([batch]) == ["applied"]
    assert await standby.apply([batch]) == ["duplicate"]
    assert standby.head == holder.head
    assert await numbers(standby) == [1, 2, 3]


async def test_changes_asked_for_at_once_follow_one_another(
    holder: LiveTailBuffer, standby: LiveTailBuffer
) -> None:
    await say(holder, 1, 2, 3)
    batch = await holder.batch(START, 10_000)
    verdicts = await asyncio.gather(standby.apply([batch]), standby.apply([batch]))
    assert verdicts == [["applied"], ["duplicate"]]
    assert await numbers(standby) == [1, 2, 3]


async def test_a_batch_that_overlaps_adds_only_what_is_new(
    holder: LiveTailBuffer, standby: LiveTailBuffer
) -> None:
    await say(holder, 1, 2)
    await copy(holder, standby)
    await say(holder, 3)
    assert await standby.apply([await holder.batch(START, 10_000)]) == ["applied"]
    assert await numbers(standby) == [1, 2, 3]


async def test_a_gap_is_refused_and_changes_nothing(holder: LiveTailBuffer, standby: LiveTailBuffer) -> None:
    await say(holder, 1, 2, 3)
    assert await standby.apply([await holder.batch(P(1, 2), 10_000)]) == ["gap"]
    assert standby.head == START
    assert await numbers(standby) == []


async def test_a_log_that_went_on_differently_is_a_gap(
    holder: LiveTailBuffer, standby: LiveTailBuffer
) -> None:
    await say(holder, 1)
    await copy(holder, standby)
    await say(standby, 2)  # said under epoch 1 and never heard by the next holder
    await say(holder, 3, epoch=2)
    assert await standby.apply([await holder.batch(P(1, 1), 10_000)]) == ["gap"]
    await standby.truncate(P(1, 1))
    assert await numbers(standby) == [1]
    await copy(holder, standby)
    assert await numbers(standby) == [1, 3]
    assert standby.lineage == {1: 1, 2: 2}


async def test_a_line_of_a_past_epoch_is_left_to_the_present_holder(holder: LiveTailBuffer) -> None:
    await say(holder, 1, epoch=3)
    await say(holder, 2, epoch=2)
    assert holder.head == P(3, 1)


async def test_the_oldest_lines_of_a_topic_make_room(tmp_path: Path) -> None:
    buffer = await opened(tmp_path / "small.db", cap=30)
    for n in range(1, 8):
        buffer.stage(1, line(n, text="x" * 10))
    buffer.stage(1, line(1, topic="other"))
    await buffer.settled()
    assert await numbers(buffer) == [5, 6, 7]
    assert await numbers(buffer, "other") == [1]
    assert (buffer.topic("42").size, buffer.topic("42").count, buffer.topic("42").first) == (30, 3, 5)
    await say(buffer, 2)
    assert await numbers(buffer) == [5, 6, 7], "a line dropped for space does not come back"
    buffer.stage(1, line(8, text="y" * 99))
    await buffer.settled()
    assert await numbers(buffer) == [8], "the newest line stays, however long"


async def test_a_line_dropped_for_space_leaves_no_hole_when_it_is_said_again(tmp_path: Path) -> None:
    buffer = await opened(tmp_path / "small.db", cap=30)
    for n, size in ((1, 10), (2, 20), (3, 15), (1, 10)):
        buffer.stage(1, line(n, text="x" * size))
        await buffer.settled()
    assert await numbers(buffer) == [3]


async def test_a_copy_that_starts_over_takes_again_what_it_had_dropped_for_space(
    tmp_path: Path, holder: LiveTailBuffer
) -> None:
    await say(holder, *range(1, 21))
    standby = await opened(tmp_path / "small.db", cap=40)
    await copy(holder, standby)
    assert 1 not in await numbers(standby)
    standby.keep_at_least(holder.cap_bytes)
    await standby.truncate(START)
    await copy(holder, standby)
    assert await numbers(standby) == await numbers(holder)
    await standby._database.close()  # type: ignore[attr-defined]


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    database = SqliteDatabase.open(tmp_path / "mesh.db")
    first = await LiveTailBuffer.open(database, SystemClock(), 10_000)
    await say(first, 1, 2)
    await say(first, 3, topic="other", epoch=4)
    manifest = await first.manifest()
    await database.close()
    again = await opened(tmp_path / "mesh.db")
    assert again.head == P(4, 3)
    assert again.lineage == {1: 2, 4: 3}
    assert await again.manifest() == manifest
    assert sorted(state.topic for state in again.topics()) == ["42", "other"]
    assert again.topic("42").last_text == "line 2"
    assert [entry.line.topic_seq for entry in (await again.batch(START, 9_999)).entries] == [1, 2, 3]


async def test_lines_that_made_room_are_not_counted_again_by_a_start(tmp_path: Path) -> None:
    buffer = await opened(tmp_path / "mesh.db", cap=100)
    for n in range(1, 5):
        buffer.stage(1, line(n, text="x" * 40))
        await buffer.settled()
        topics, ends, _ = await buffer._database.read(recover)
        assert (topics["42"], ends) == (buffer.topic("42"), buffer.lineage)
    assert buffer.topic("42").floor == 2
    await buffer._database.close()  # type: ignore[attr-defined]


async def test_a_line_said_again_after_a_start_is_held_once(tmp_path: Path) -> None:
    """Also when it came since the last round and the index of topics does not have it."""
    path = tmp_path / "again.db"
    buffer = await opened(path)
    await say(buffer, 1, 2)
    await buffer._database.close()  # type: ignore[attr-defined]
    again = await opened(path)
    await say(again, 1, 2, 3, epoch=2)
    assert await numbers(again) == [1, 2, 3]
    assert again.head == P(2, 3)
    await again._database.close()  # type: ignore[attr-defined]


async def test_what_a_start_counted_again_is_written_with_the_next_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "again.db"
    buffer = await opened(path)
    await say(buffer, 1, 2)
    held = buffer.topic("42")
    await buffer._database.close()  # type: ignore[attr-defined]
    again = await opened(path)
    monkeypatch.setattr("instar_node.livetail.unsaved.ROUND_ENTRIES", 1)
    await say(again, 1, topic="other")
    topics, _, unsaved = await again._database.read(recover)
    assert unsaved.since == again.head
    assert topics["42"] == held
    await again._database.close()  # type: ignore[attr-defined]


async def test_a_start_shows_the_same_beginning_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "again.db"
    buffer = await opened(path)
    buffer.stage(1, line(1, text="before\0after, \N{OWL}" + "x" * 1_000))
    await buffer.settled()
    held = buffer.topic("42")
    await buffer._database.close()  # type: ignore[attr-defined]
    again = await opened(path)
    assert again.topic("42") == held
    await say(again, 2)
    await again.truncate(P(1, 1))
    assert again.topic("42") == held
    await again._database.close()  # type: ignore[attr-defined]


async def test_a_start_knows_the_end_of_a_log_whose_last_entries_are_held_nowhere(
    standby: LiveTailBuffer,
) -> None:
    entry = TailEntry(P(1, 3), line(1))
    assert await standby.apply([Batch(START, (entry,), P(1, 7))]) == ["applied"]
    _, ends, _ = await standby._database.read(recover)
    assert ends == standby.lineage == {1: 7}


async def test_what_a_start_counts_again_is_bounded(
    holder: LiveTailBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.livetail.unsaved.ROUND_ENTRIES", 5)
    behind = []
    for n in range(1, 20):
        await say(holder, n)
        again, _, unsaved = await holder._database.read(recover)
        assert again["42"] == holder.topic("42")
        behind.append(holder.head.seq - unsaved.since.seq)
    assert set(behind) == {0, 1, 2, 3, 4}


async def test_a_manifest_does_not_wait_for_the_conversation_to_pause(holder: LiveTailBuffer) -> None:
    stop = asyncio.Event()

    async def talk() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            holder.stage(1, line(n))
            await asyncio.sleep(0)

    talking = asyncio.create_task(talk())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert (await holder.manifest()).position.seq >= 1
    stop.set()
    await talking
    await holder.settled()


async def test_equal_copies_have_equal_digests_and_one_changed_letter_shows(
    holder: LiveTailBuffer, standby: LiveTailBuffer
) -> None:
    await say(holder, 1, 2)
    await say(holder, 3, topic="other")
    await copy(holder, standby)
    assert await standby.differing(await holder.manifest()) == []
    await standby.truncate(P(1, 1))
    forged = msgspec.structs.replace(line(2), text="line 2!")
    await standby.apply([Batch(P(1, 1), (TailEntry(P(1, 2), forged),), P(1, 2))])
    assert await standby.differing(await holder.manifest()) == ["42", "other"]


async def test_a_copy_that_keeps_more_is_compared_where_the_other_begins(
    tmp_path: Path, standby: LiveTailBuffer
) -> None:
    small = await opened(tmp_path / "small.db", cap=20)
    for n in range(1, 6):
        await say(small, n)
        await copy(small, standby)
    assert await numbers(small) == [3, 4, 5]
    assert await numbers(standby) == [1, 2, 3, 4, 5]
    assert await standby.differing(await small.manifest()) == []
    assert await small.differing(await standby.manifest()) == ["42"]


async def test_what_was_said_after_a_manifest_was_made_does_not_count_as_a_difference(
    holder: LiveTailBuffer, standby: LiveTailBuffer
) -> None:
    await say(holder, 1, 2)
    manifest = await holder.manifest()
    await say(holder, 3)
    await copy(holder, standby)
    assert await standby.differing(manifest) == []
    await standby.truncate(P(1, 1))
    await standby.apply([Batch(P(1, 1), (TailEntry(P(1, 3), line(3)),), P(1, 3))])
    assert await standby.differing(manifest) == ["42"]


async def test_a_copy_that_was_away_while_lines_were_dropped_still_catches_up(
    tmp_path: Path, standby: LiveTailBuffer
) -> None:
    small = await opened(tmp_path / "small.db", cap=20)
    await say(small, 1)
    await copy(small, standby)
    await say(small, *range(2, 9))
    small = await opened(tmp_path / "small.db", cap=20)  # nothing in memory: fed from what is still held
    await copy(small, standby)
    assert standby.head == small.head
    assert await numbers(standby) == [1, 6, 7, 8]
    assert await standby.differing(await small.manifest()) == []


async def test_feeding_from_disk_and_from_memory_is_the_same(tmp_path: Path, holder: LiveTailBuffer) -> None:
    await say(holder, *range(1, 40))
    from_memory = await holder.batch(P(1, 5), 100)
    reopened = await opened(tmp_path / "holder.db")
    assert await reopened.batch(P(1, 5), 100) == from_memory
    assert 1 < len(from_memory.entries) < 35
    assert (await holder.batch(holder.head, 100)).entries == ()


async def test_a_batch_is_never_empty_while_something_follows(holder: LiveTailBuffer) -> None:
    holder.stage(1, line(1, text="x" * 5_000))
    await say(holder, 2)
    assert [entry.line.topic_seq for entry in (await holder.batch(START, 1)).entries] == [1]


async def test_how_far_behind_counts_entries_and_bytes_from_memory_and_from_disk(
    tmp_path: Path, holder: LiveTailBuffer
) -> None:
    await say(holder, 1, 2, 3)
    await say(holder, 4, topic="other")
    reopened = await opened(tmp_path / "holder.db")  # nothing in memory
    for buffer in (holder, reopened):
        assert await buffer.behind(P(1, 1)) == [
            ("42", 2, 12, "2026-01-01T00:00:02Z"),
            ("other", 1, 6, "2026-01-01T00:00:04Z"),
        ]
        assert await buffer.behind(P(1, 4)) == []


async def test_a_page_of_a_topic_costs_the_same_however_long_the_topic_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.livetail.unsaved.ROUND_ENTRIES", 1)

    def steps(db: sqlite3.Connection, of: Callable[[sqlite3.Connection], object]) -> int:
        taken = 0

        def step() -> int:
            nonlocal taken
            taken += 1
            return 0

        db.set_progress_handler(step, 1)
        of(db)
        db.set_progress_handler(None, 1)
        return taken

    async def costs(count: int) -> list[int]:
        buffer = await opened(tmp_path / f"{count}.db", 1_000_000)
        await say(buffer, *range(1, count + 1))
        pages: list[Callable[[sqlite3.Connection], object]] = [
            lambda db: store.newest_before(db, "42", 1 << 62, 20),
            lambda db: store.lines_after(db, "42", 10, 20),
            lambda db: store.behind(db, count - 20),
            lambda db: next(store.oldest_first(db, "42")),
        ]
        found = [
            await buffer._database.read(lambda db, page=page: steps(db, page))  # type: ignore[misc]
            for page in pages
        ]
        await buffer._database.close()  # type: ignore[attr-defined]
        return found

    for few, many in zip(await costs(50), await costs(3_000), strict=True):
        assert 0 < many <= 1.02 * few


async def test_lines_the_disk_refuses_are_written_later(tmp_path: Path) -> None:
    class Refusing:
        def __init__(self) -> None:
            self.inner, self.refusals = SqliteDatabase.open(tmp_path / "mesh.db"), 1
            self.read = self.inner.read

        async def write(self, job: object, within_s: float = 0.0) -> object:
            if self.refusals:
                self.refusals -= 1
                raise InstarError("disk-full", "no room")
            return await self.inner.write(job)  # type: ignore[arg-type]

    read_meanwhile: list[list[int]] = []

    class Instant(SystemClock):
        async def sleep(self, seconds: float) -> None:
            buffer.stage(1, line(2))
            read_meanwhile.append(await numbers(buffer))

    buffer = await LiveTailBuffer.open(Refusing(), Instant(), 10_000)  # type: ignore[arg-type]
    await say(buffer, 1)
    await buffer.settled()
    assert buffer.head == P(1, 2)
    assert read_meanwhile == [[1, 2]], "each once, while it waits"


async def test_a_caller_that_goes_away_leaves_memory_and_disk_in_step(
    holder: LiveTailBuffer, standby: LiveTailBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(holder, 1, 2, 3)
    write, written = standby._database.write, asyncio.Event()

    async def slow_write(job: Any, within_s: float = 0.0) -> Any:
        change = await write(job)
        written.set()
        await asyncio.sleep(0)
        return change

    monkeypatch.setattr(standby._database, "write", slow_write)
    batch = await holder.batch(START, 10_000)
    for change, end in ((standby.apply([batch]), P(1, 3)), (standby.truncate(P(1, 1)), P(1, 1))):
        written.clear()
        task = asyncio.ensure_future(change)
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda end=end: standby.head == end)  # type: ignore[misc]
    assert await standby.apply([batch]) == ["applied"]
    assert await numbers(standby) == [1, 2, 3]
    assert await standby.differing(await holder.manifest()) == []


async def test_a_copy_remembers_so_many_epochs_that_it_can_tell_them(holder: LiveTailBuffer) -> None:
    for epoch in range(1, 300):
        holder.stage(epoch, line(epoch, epoch=epoch))
    await holder.settled()
    assert list(holder.lineage) == list(range(300 - LINEAGE_KEPT, 300))
    _, ends, _ = await holder._database.read(recover)
    assert ends == holder.lineage


async def test_a_refused_line_is_numbered_anew_with_what_was_said_meanwhile(
    holder: LiveTailBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed job leaves no trace in the counts that are kept in memory."""
    await say(holder, 1)
    insert = store.insert

    def full(db: sqlite3.Connection, rows: Iterable[store.EntryRow]) -> None:
        insert(db, rows)
        monkeypatch.setattr(store, "insert", insert)
        raise InstarError("disk-full", "no room")

    monkeypatch.setattr(store, "insert", full)
    monkeypatch.setattr("instar_node.livetail.buffer.RETRY_S", 0.0)
    await say(holder, 2)
    await say(holder, 3)
    assert await numbers(holder) == [1, 2, 3]
    assert (holder.head, holder.topic("42").count, holder.topic("42").size) == (P(1, 3), 3, 18)


def test_the_common_point_is_the_shorter_end_of_the_newest_shared_epoch() -> None:
    assert common_point({1: 13}, {1: 15, 2: 20}) == P(1, 13)
    assert common_point({1: 15, 2: 20}, {1: 13}) == P(1, 13)
    assert common_point({1: 10, 2: 20}, {1: 10, 3: 12}) == P(1, 10)
    assert common_point({2: 5}, {1: 5}) == START
    assert common_point({}, {}) == START


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from("ab"), st.integers(1, 60)), max_size=30),
    st.lists(st.integers(1, 200), min_size=1, max_size=5),
)
def test_a_copy_fed_in_any_pieces_equals_its_source(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, str, int]], pieces: list[int]
) -> None:
    async def play() -> None:
        folder = tmp_path_factory.mktemp("tail")
        source, target = await opened(folder / "a.db", 100), await opened(folder / "b.db", 100)
        for index, (n, topic, length) in enumerate(said):
            source.stage(1, line(n, topic, text="x" * length))
            if index % 3 == 0:
                await source.settled()
            if target.head < source.head:
                await target.apply([await source.batch(target.head, pieces[index % len(pieces)])])
        await source.settled()
        await copy(source, target)
        assert await target.differing(await source.manifest()) == []
        assert await source.differing(await target.manifest()) == []

    asyncio.run(play())


class Refusing:
    """A database whose next job fails after it has done its work, as often as it is told."""

    def __init__(self, path: Path) -> None:
        self.inner, self.refusals = SqliteDatabase.open(path), 0
        self.read = self.inner.read

    async def write(self, job: Any, within_s: float = 0.0) -> Any:
        def refused(db: sqlite3.Connection) -> None:
            job(db)
            raise InstarError("disk-full", "no room")

        self.refusals, refuse = max(self.refusals - 1, 0), self.refusals > 0
        return await self.inner.write(refused if refuse else job)


def _by_name(buffer: LiveTailBuffer) -> dict[str, store.TopicState]:
    return {state.topic: state for state in buffer.topics()}


def halfway(lineage: Mapping[int, int]) -> LogPosition:
    """A position in the middle of a log that knows these epochs."""
    seq = max(lineage.values(), default=0) // 2
    return P(min(epoch for epoch, last in lineage.items() if last >= seq), seq) if seq else START


WORDS = st.tuples(st.integers(1, 12), st.sampled_from("ab"), st.integers(1, 60))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        WORDS | st.sampled_from(["refuse", "settle", "copy", "cut", "empty", "die", "epoch"]), max_size=40
    ),
    st.sampled_from([1, 3, 1_000]),
)
def test_memory_says_what_the_disk_holds_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int] | str], a_round: int
) -> None:
    async def play() -> None:
        epoch = 1
        folder = tmp_path_factory.mktemp("tail")
        paths = (folder / "a.db", folder / "b.db")
        databases = [Refusing(path) for path in paths]
        clock = SystemClock()
        source, target = [await LiveTailBuffer.open(db, clock, 100) for db in databases]  # type: ignore[arg-type]
        for step in steps:
            if isinstance(step, tuple):
                n, topic, length = step
                source.stage(epoch, line(n, topic, text="x" * length, epoch=epoch))
            elif step == "refuse":
                for database in databases:
                    database.refusals += 1
            elif step == "settle":
                await source.settled()
            elif step == "epoch":
                epoch += 1
            elif step == "die":
                await source.settled()
                source, target = [await LiveTailBuffer.open(db, clock, 100) for db in databases]  # type: ignore[arg-type]
            else:
                with suppress(InstarError):
                    if step != "copy":
                        await target.truncate(halfway(target.lineage) if step == "cut" else START)
                    await target.apply([await source.batch(target.head, 50)])
        await source.settled()
        for database, path, buffer in zip(databases, paths, (source, target), strict=True):
            fed = [entry.position for entry in (await buffer.batch(START, 10_000)).entries]
            assert fed == sorted(set(fed)), "memory feeds nothing that was cut"
            await database.inner.close()
            again = await opened(path, 100)
            assert (again.head, again.lineage) == (buffer.head, buffer.lineage)
            assert _by_name(again) == _by_name(buffer)
            for state in again.topics():
                lines = await again.messages(state.topic, 0, 1_000)
                digests = [int.from_bytes(line_digest(line)) for line in lines]
                assert (state.count, state.digest) == (len(lines), set_digest(sum(digests)))
                assert (state.first, state.last) == (lines[0].topic_seq, lines[-1].topic_seq)
                assert state.size == sum(len(line.text) for line in lines)
            await again._database.close()  # type: ignore[attr-defined]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("instar_node.livetail.buffer.RETRY_S", 0.0)
        patched.setattr("instar_node.livetail.unsaved.ROUND_ENTRIES", a_round)
        asyncio.run(play())
