"""Answers that are nothing but an entry of the log: reserved and committed in one, where that is safe."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instar_node.contracts import LogPosition
from instar_node.delivery.wire import ReplicaOffer
from instar_node.errors import InstarError
from tests.unit.delivery_world import Machine, World, running_world, until

START = LogPosition(0, 0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """``a`` awake and out of touch with ``b``; replies are read from the ledger, and go nowhere else."""
    async with running_world(tmp_path, "ab") as running:
        for machine in running.machines.values():
            machine.channel.in_ledger = True
        running.network.isolate("b")
        running.lead("a", 1)
        yield running


async def kinds(machine: Machine) -> list[str]:
    return [entry.kind for entry in await machine.ledger.log.read_after(START, 1 << 20)]


async def ask(machine: Machine) -> None:
    await machine.delivery.submit("t", "hello", "k")


async def answered(machine: Machine) -> None:
    await until(lambda: not machine.ledger.log.state.open)
    assert await machine.lines("t") == [("user", "hello"), ("agent", "a: hello")]


async def test_alone_an_answer_is_one_entry(world: World) -> None:
    await ask(world["a"])
    await answered(world["a"])
    assert "reserved" not in await kinds(world["a"])
    assert world.receiver.attempts == []
    assert [line["kind"] for line in world["a"].sink.lines] == ["user", "agent"]


async def test_what_goes_outside_is_reserved_before_it_is_sent(world: World) -> None:
    world["a"].channel.in_ledger = False
    await ask(world["a"])
    await answered(world["a"])
    assert (await kinds(world["a"]))[-2:] == ["reserved", "committed"]
    assert world.receiver.texts == ["a: hello"]


async def test_a_machine_that_follows_has_the_answer_before_anybody_can_see_it(world: World) -> None:
    await world.connect("b")
    await until(lambda: world["a"].transport.caught_up("b"))
    await ask(world["a"])
    await answered(world["a"])
    assert (await kinds(world["a"]))[-2:] == ["reserved", "committed"]


async def test_an_answer_waits_for_a_machine_of_the_electorate_that_is_out_of_reach(world: World) -> None:
    a = world["a"]
    a.agent.gate.clear()
    await ask(a)
    await until(lambda: a.agent.requests)
    a.authority.electorate("b")
    a.agent.gate.set()
    await until(lambda: a.ledger.outbox())
    assert await a.lines("t") == [("user", "hello")]
    a.authority.electorate()
    await answered(a)


async def test_a_machine_that_joins_while_an_answer_is_on_its_way_to_the_disk_has_it_when_it_is_level(
    world: World,
) -> None:
    a, b = world["a"], world["b"]
    a.agent.gate.clear()
    await ask(a)
    await until(lambda: a.agent.requests and not a.ledger.log.busy)
    disk = threading.Event()
    stuck = asyncio.ensure_future(a.db.write(lambda connection: disk.wait(10)))
    a.agent.gate.set()
    await until(lambda: a.ledger.log.busy)
    await world.connect("b")
    await until(lambda: any(isinstance(message, ReplicaOffer) for _, message in a.mesh.sent))
    assert not a.transport.caught_up("b")
    disk.set()
    await stuck
    await until(lambda: a.transport.caught_up("b"))
    assert await b.state("t", "k") == "committed"


async def test_without_the_lease_nothing_is_settled(world: World) -> None:
    a = world["a"]
    a.agent.gate.clear()
    await ask(a)
    await until(lambda: a.agent.requests)
    a.authority.change_silently(None)
    a.agent.gate.set()
    await until(lambda: not a.delivery.running)
    assert await a.lines("t") == [("user", "hello")]
    world.lead("a", 2)
    await answered(a)


async def test_an_answer_is_settled_once(world: World) -> None:
    a = world["a"]
    assert await a.delivery.drain(1)  # only the test works on messages
    await ask(a)
    row = a.ledger.open_message("local:t:k")
    assert row is not None
    grant = a.ledger.begin(row)
    assert (await a.outbox.answer(row.key, grant, ("one",))).state == "committed"
    with pytest.raises(InstarError) as again:
        await a.outbox.answer(row.key, grant, ("two",))
    assert again.value.code == "already-replied"
    assert await a.lines("t") == [("user", "hello"), ("agent", "one")]
