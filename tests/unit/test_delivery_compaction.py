"""Old texts go; that a message was answered is never forgotten, and the cost of one does not grow."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instar_node.contracts import RunResult
from instar_node.delivery import tables
from instar_node.delivery.compaction import SECONDS_PER_DAY, Chunk, Compactor, compact_chunk
from instar_node.delivery.conversation import GONE, Conversation
from instar_node.delivery.entries import GENESIS
from instar_node.delivery.rows import MessageRow, Rank, Status
from instar_node.errors import InstarError
from tests.unit.delivery_world import Machine, QuickClock, World, running_world, until


class Later(QuickClock):
    """The wall clock so many days on."""

    def __init__(self, days: float) -> None:
        self._days = days

    def wall(self) -> float:
        return super().wall() + self._days * SECONDS_PER_DAY


def compactor(machine: Machine, days_later: float, keep_days: int = 30) -> Compactor:
    return Compactor(machine.db, machine.ledger.log, Later(days_later), keep_days)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, "abc") as running:
        yield running


async def talk(world: World, *keys: str) -> None:
    for key in keys:
        await world["a"].delivery.submit("t", f"secret plan {key}", key, "Ada")
    await until(lambda: not world["a"].ledger.log.state.open and not world["a"].ledger.log.busy)


def on_disk(machine: Machine) -> bytes:
    """All that the tables hold."""
    with sqlite3.connect(machine.path) as connection:
        bodies = connection.execute(
            "SELECT body FROM ledger_log UNION ALL SELECT row FROM messages UNION ALL SELECT row FROM topics"
        ).fetchall()
    return b"".join(body for (body,) in bodies)


async def test_texts_go_after_the_stated_time_and_not_before(world: World) -> None:
    world.lead("a", 1)
    await talk(world, "k1")
    assert await compactor(world["a"], days_later=29.9).compact() == 0
    assert b"secret plan" in on_disk(world["a"])
    assert await compactor(world["a"], days_later=30.1).compact() > 0
    assert b"secret plan" not in on_disk(world["a"])
    assert b"Ada" not in on_disk(world["a"])
    assert "secret plan" not in str(world["a"].ledger.topics()), "nor is it shown until the next start"
    assert await compactor(world["a"], days_later=30.1).compact() == 0


async def test_no_text_that_was_dropped_comes_back_with_what_is_written_later(world: World) -> None:
    world.lead("a", 1)
    await talk(world, "k1")
    assert await compactor(world["a"], days_later=31).compact() > 0
    await talk(world, "k2")
    await world["a"].ledger.log.save()
    assert b"secret plan k2" in on_disk(world["a"])
    assert b"secret plan k1" not in on_disk(world["a"])


async def test_a_newer_line_is_still_shown_when_an_older_one_loses_its_text(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lead("a", 1)
    await talk(world, "k1")
    log = world["a"].ledger.log
    await log.save()
    await talk(world, "k2")
    newest = world["a"].ledger.topics()["t"]

    async def in_a_round_before() -> None: ...

    monkeypatch.setattr(log, "save", in_a_round_before)
    assert await compactor(world["a"], days_later=31).compact() > 0
    assert world["a"].ledger.topics()["t"] == newest


async def test_what_changed_since_the_last_round_keeps_its_text_until_it_was_written(world: World) -> None:
    world.lead("a", 1)
    await talk(world, "k1")
    log = world["a"].ledger.log
    await log.save()
    more = MessageRow("local:t:k1", Status(Rank.CURSOR_ADVANCED, 1, 99))
    await log.submit(lambda tx: tx.append(1, "cursor_advanced", more))
    assert (await compact_all(world["a"])).dropped == 0
    await log.save()
    assert (await compact_all(world["a"])).dropped > 0
    assert b"secret plan" not in on_disk(world["a"])


async def compact_all(machine: Machine) -> Chunk:
    return await machine.db.write(lambda connection: compact_chunk(connection, "9999"))


async def test_key_end_state_and_epoch_stay_for_ever(world: World) -> None:
    world.lead("a", 1)
    await talk(world, "k1")
    before = await world["a"].ledger.message("local:t:k1")
    assert before is not None
    await compactor(world["a"], days_later=31).compact()
    await world["a"].kill()
    await world["a"].boot()
    after = await world["a"].ledger.message("local:t:k1")
    assert after is not None
    assert (after.status, after.commit, after.grant) == (before.status, before.commit, before.grant)
    assert [r.digest for r in after.reservations] == [r.digest for r in before.reservations]
    world.lead("a", 2)
    again = await world["a"].delivery.submit("t", "secret plan k1", "k1")
    assert again.duplicate
    assert len(world.receiver.taken) == 1
    lines = await Conversation(world["a"].db, world["a"].ledger.log).lines("t")
    assert [(line.role, line.text) for line in lines] == [("user", GONE), ("agent", GONE)]
    assert await Conversation(world["a"].db, world["a"].ledger.log).history("t", 99, 50) == ()


async def test_what_waits_for_somebody_keeps_its_text_and_so_does_what_came_after(world: World) -> None:
    world.lead("a", 1)
    await talk(world, "k1")
    world["a"].agent.results = [RunResult("waiting")]
    await world["a"].delivery.submit("t", "secret plan k2", "k2")
    await until(lambda: [r.state for r in world["a"].ledger.open_messages()] == ["waiting"])
    await world["a"].delivery.submit("u", "secret plan k3", "k3")
    await until(lambda: len(world.receiver.taken) == 2)
    await compactor(world["a"], days_later=31).compact()
    kept = on_disk(world["a"])
    assert b"secret plan k1" not in kept
    assert b"secret plan k2" in kept
    assert b"secret plan k3" in kept
    await world["a"].delivery.reply("t", "k2", "done")
    await until(lambda: not world["a"].ledger.log.state.open and not world["a"].ledger.log.busy)
    await compactor(world["a"], days_later=31).compact()
    assert b"secret plan" not in on_disk(world["a"])


async def test_a_machine_that_joins_later_gets_a_compacted_log_and_goes_on_from_it(world: World) -> None:
    world.lead("a", 1)
    world.network.cut("a", "c")
    await talk(world, "k1", "k2")
    await compactor(world["a"], days_later=31).compact()
    await world["a"].kill()  # nothing of it is in memory any more
    await world["a"].boot()
    world["b"].authority.observe("a", 2)
    world["c"].authority.observe("a", 2)
    world["a"].authority.become_holder(2)
    await world.connect("a")
    await talk(world, "k3")
    await until(lambda: world["c"].ledger.log.state.head == world["a"].ledger.log.state.head)
    assert await world["c"].state("t", "k1") == "committed"
    assert await world["c"].lines("t") == await world["a"].lines("t")
    assert b"secret plan k1" not in on_disk(world["c"])
    assert world["c"].ledger.open_messages() == []


async def test_a_settled_message_of_which_only_the_beginning_has_come_is_not_answered_anew(
    world: World,
) -> None:
    row = MessageRow("local:t:k1", compacted=True)
    assert not row.open
    world.lead("a", 1)
    await talk(world, "k1")
    await compactor(world["a"], days_later=31).compact()
    await world["a"].kill()
    await world["a"].boot()
    [first, received, *_] = await world["a"].ledger.log.read_after(GENESIS.position, 1 << 20)
    assert received.kind == "received"
    await world["c"].kill()
    for file in world.folder.glob("c.db*"):
        file.unlink()
    await world["c"].boot()
    await world["c"].ledger.log.submit(lambda tx: tx.ingest([first, received]))
    world["c"].authority.become_holder(1_000_000)
    await world["c"].delivery.submit("t", "new", "k9")
    await until(lambda: world.receiver.texts[-1] == "c: new")
    assert world["c"].agent.runs_of("") == 0


async def test_a_log_cut_off_below_where_compaction_came_is_compacted_again(world: World) -> None:
    world.lead("a", 1)
    await talk(world, "k1", "k2")
    await compactor(world["a"], days_later=31).compact()
    entries = await world["a"].ledger.log.read_after(GENESIS.position, 1 << 20)
    await world["a"].ledger.log.submit(lambda tx: tx.truncate(entries[2].mark))
    assert await world["a"].db.read(tables.compacted_to) == entries[2].position


async def test_it_runs_by_itself(world: World) -> None:
    world.lead("a", 1)
    await talk(world, "k1")
    background = compactor(world["a"], days_later=31)

    class Hour:
        def __init__(self) -> None:
            self.over = asyncio.Event()

        async def sleep(self, seconds: float) -> None:
            await self.over.wait()
            self.over.clear()

    hour = Hour()
    background._clock.sleep = hour.sleep  # type: ignore[method-assign]
    background.start()
    hour.over.set()
    while b"secret plan" in on_disk(world["a"]):
        await asyncio.sleep(0.01)
    await background.stop()


async def test_no_step_of_a_message_reads_a_whole_table(world: World) -> None:
    """So that a million rows cost no message anything: every statement finds its rows by an index."""
    world.lead("a", 1)
    await talk(world, "warm-up")
    seen: set[str] = set()
    write, read = world["a"].db.write, world["a"].db.read

    def traced(call):  # type: ignore[no-untyped-def]
        async def run(job):  # type: ignore[no-untyped-def]
            def watched(connection: sqlite3.Connection) -> object:
                connection.set_trace_callback(seen.add)
                try:
                    return job(connection)
                finally:
                    connection.set_trace_callback(None)

            return await call(watched)

        return run

    world["a"].db.write, world["a"].db.read = traced(write), traced(read)  # type: ignore[method-assign]
    await talk(world, "k1", "k2")
    await Conversation(world["a"].db, world["a"].ledger.log).history("t", 99, 50)
    with pytest.raises(InstarError, match="another text"):
        await world["a"].delivery.submit("t", "something else", "k1")
    statements = {sql for sql in seen if sql.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")}
    assert len(statements) > 8
    with sqlite3.connect(world["a"].path) as connection:
        for sql in statements:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
            scans = [step for step in plan if step.startswith("SCAN") and step != "SCAN r"]
            scans = [step for step in scans if not step.endswith("CONSTANT ROWS")]  # those of the statement
            assert scans == [], (sql, plan)
