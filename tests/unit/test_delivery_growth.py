"""A message costs the same whatever came before it: counted in steps of SQLite's machine, not in time.

The ledger is filled through its own steps. The short run compares a few hundred messages with twenty
thousand; ``--long`` goes to a million rows in ten thousand topics.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from instar_node.delivery.compaction import compact_chunk
from instar_node.delivery.conversation import Conversation
from instar_node.delivery.loading import load_state
from instar_node.delivery.rows import Grant
from instar_node.delivery.state import LedgerState
from instar_node.delivery.steps import Incoming, begin, commit, open_epoch, record, reserve
from instar_node.delivery.transaction import Transaction
from instar_node.storage.schema import migrate
from tests.unit.delivery_world import World, running_world, until

MANY, LONG = 20_000, 1_000_000
TOPICS, LONG_TOPICS = 50, 10_000
TALK = 200
"""Messages of the topic in which it is looked: more than an agent or a round of compaction is given."""
GROUP = 500
ASKED = 20
MORE = 1.02
"""What a deeper tree may cost: a step or two where the pages of an index divide."""
LONG_AGO = "2020-01-01T00:00:00.000Z"


def fill(path: Path, messages: int, topics: int) -> None:
    """A ledger in which so many messages were answered, in epoch 1 by machine a."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        migrate(connection, path)
        state = LedgerState()
        for start in range(0, messages, GROUP):
            connection.execute("BEGIN")
            tx = Transaction(connection, state)
            open_epoch(tx, 1, "a", frozenset())
            for n in range(start, min(start + GROUP, messages)):
                topic = "t" if n < TALK else f"t{n % topics}"
                answer(tx, f"k{n}", topic, Grant(1, n + 1))
            outcome = tx.finish()
            connection.execute("COMMIT")
            state.absorb(outcome)


def answer(tx: Transaction, name: str, topic: str, grant: Grant) -> None:
    """The whole life of a message, as the steps of the ledger."""
    key = f"local:{topic}:{name}"
    record(tx, 1, Incoming(key, topic, f"what about {name}?", "Ada", "local", LONG_AGO, "", "a"))
    begin(tx, 1, key, grant)
    row = reserve(tx, 1, key, grant, (f"nothing about {name}",), "a")
    assert row.reservation is not None
    commit(tx, 1, key, row.reservation.digest, LONG_AGO, "a")


class Counting:
    """Counts the steps of every job that goes through a database."""

    def __init__(self, database: Any) -> None:
        self.steps = 0
        for name in ("read", "write"):
            setattr(database, name, self._counted(getattr(database, name)))

    def _counted(self, call: Any) -> Callable[[Any], Any]:
        async def run(job: Any) -> Any:
            def watched(connection: sqlite3.Connection) -> Any:
                connection.set_progress_handler(self._step, 1)
                try:
                    return job(connection)
                finally:
                    connection.set_progress_handler(None, 1)

            return await call(watched)

        return run

    def _step(self) -> int:
        self.steps += 1
        return 0


async def cost(world: World, before: int) -> dict[str, int]:
    """Steps that each kind of work takes on top of what is there, for messages whose topics have lines."""
    machine = world["a"]
    world.lead("a", 2)
    await until(lambda: machine.ledger.head.epoch == 2)
    counting = Counting(machine.db)
    spent: dict[str, int] = {}

    def note(what: str) -> None:
        spent[what], counting.steps = counting.steps, 0

    for n in range(ASKED):
        await machine.delivery.submit("t", f"hello {n}", f"new-{n}")
        await until(lambda: not machine.ledger.log.state.open)
        await machine.ledger.settled()
    await machine.ledger.log.save()
    note("messages")
    again = await machine.delivery.submit("t", "what about k1?", "k1")
    assert again.duplicate
    note("a key of long ago")
    assert len(await Conversation(machine.db, machine.ledger.log).history("t", 1 << 40, 50)) == 50
    note("history for an agent")
    assert len(await Conversation(machine.db, machine.ledger.log).lines("t", 0, 50)) == 50
    note("a page of the conversation")
    chunk = await machine.db.write(lambda connection: compact_chunk(connection, "2021"))
    assert chunk.more
    note("a round of compaction")
    state = await machine.db.read(load_state)
    assert state.totals.entries > 4 * before
    note("a start")
    return spent


async def cost_after(folder: Path, messages: int, topics: int) -> dict[str, int]:
    folder.mkdir()
    fill(folder / "a.db", messages, topics)
    async with running_world(folder, "a") as world:
        return await cost(world, messages)


async def test_a_message_costs_the_same_however_many_came_before(tmp_path: Path, long_run: bool) -> None:
    many, topics = (LONG, LONG_TOPICS) if long_run else (MANY, TOPICS)
    after_few = await cost_after(tmp_path / "few", TALK + topics, topics)
    after_many = await cost_after(tmp_path / "many", many, topics)
    assert after_few["messages"] > ASKED * 100
    for what, steps in after_many.items():
        assert steps <= MORE * after_few[what], (what, after_few, after_many)
