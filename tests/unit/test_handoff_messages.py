"""Handing over under traffic, with the real ledger, replication, outbox and work on messages."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instar_node.clock import SystemClock
from instar_node.contracts import PeerInfo, Placement
from instar_node.delivery.entries import Mark
from instar_node.errors import InstarError
from instar_node.handoff.board import HandoffBoard
from instar_node.handoff.copies import Copies
from instar_node.handoff.draining import drain
from instar_node.handoff.receiver import HandoffReceiver
from instar_node.handoff.sentinel import HandoffSentinel
from instar_node.handoff.times import HandoffTimes
from instar_node.handoff.wire_transport import HandoffWireTransport
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.entry import Line, TailManifest
from instar_node.storage.database import SqliteDatabase
from tests.unit import handoff_world as stand_ins
from tests.unit.delivery_world import FakeMembers, Machine, World, running_world, until

UNTIL_RETRY_S = 0.005


class Lease:
    """``LeaseControl`` over a machine's hand-set authority: the world is the register."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._authority = world[name].authority
        self.me = name
        self.on_change = self._authority.on_change
        self.acting_epoch = self._authority.acting_epoch
        self.ack_set = self._authority.ack_set
        self.contend_in_us: int | None = None

    @property
    def epoch(self) -> int:
        return self._authority.epoch

    @property
    def holder(self) -> str | None:
        return self._authority.holder

    def snapshot(self) -> Lease:
        return self

    async def bring_in(self, machine: str, within: float) -> None:
        transport = self._world[self.me].transport
        await until(lambda: transport.caught_up(machine), f"{machine} level")
        self._authority.electorate(machine)

    async def pass_to(self, machine: str, within: float) -> int:
        self._authority.lapse()
        await asyncio.sleep(0.01)
        self._world.lead(machine, self.epoch + 1, self.me)
        return self.epoch

    async def release(self) -> None:
        raise AssertionError("not in these tests")

    async def take_over(self, within: float) -> int:
        raise AssertionError("not in these tests")

    async def force(self, vouched: tuple[str, ...]) -> int:
        raise AssertionError("not in these tests")


def sentinel_of(world: World, name: str) -> HandoffSentinel:
    """Handoff on one machine, in both roles; its outgoing side."""
    machine, lease, clock, tail = world[name], Lease(world, name), SystemClock(), stand_ins.Tail()
    members = FakeMembers(world.names)
    vars(machine.mesh)["info"] = lambda peer: PeerInfo(peer, True, None, None, None, "1", (1, 1), "one", True)
    board = HandoffBoard(lease, members, clock, machine.events)
    wire = HandoffWireTransport(machine.mesh)
    copies = Copies(tail, tail, machine.ledger.log, stand_ins.State(), stand_ins.TailManifest, Mark)
    HandoffReceiver(authority=lease, copies=copies, wire=wire, board=board, members=members)
    return HandoffSentinel(
        lease=lease,
        ingress=machine.delivery,
        waiting=lambda topic: 0,
        copies=copies,
        wire=wire,
        board=board,
        mesh=machine.mesh,
        members=members,
        clock=clock,
        times=HandoffTimes(drain_s=0.5),
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, "ab") as world:
        world.lead("a", 1, "b")
        yield world


async def send(world: World, topic: str, text: str) -> None:
    """A client: repeats with the same key, at whoever is awake, until the message is taken."""
    holder = "a"
    while True:
        try:
            await world[holder].delivery.submit(topic, text, key=text)
            return
        except InstarError:
            holder = world[holder].authority.holder or holder
            await asyncio.sleep(UNTIL_RETRY_S)


async def test_messages_sent_throughout_a_handoff_there_and_back_are_answered_once(world: World) -> None:
    there, back = sentinel_of(world, "a"), sentinel_of(world, "b")
    sent: list[str] = []
    over = asyncio.Event()

    async def talk(topic: int) -> None:
        while not over.is_set():
            sent.append(text := f"m{len(sent)}")
            await send(world, f"t{topic}", text)
            await asyncio.sleep(0.002)

    async def answers_by(machine: str) -> None:
        before = len(world.receiver.texts)

        def answered() -> bool:
            return any(text.startswith(f"{machine}: ") for text in world.receiver.texts[before:])

        await until(answered, f"{machine} answers")

    async def move() -> None:
        await answers_by("a")
        assert (await there.hand_off("b")).outcome == "awake"
        await answers_by("b")
        assert (await back.hand_off("a")).outcome == "awake"
        await answers_by("a")
        over.set()

    await asyncio.gather(move(), *(talk(topic) for topic in range(4)))
    await until(lambda: len(world.receiver.taken) >= len(sent), "all answered")
    assert Counter(text.split(": ")[1] for text in world.receiver.texts) == Counter(sent)


async def test_an_agent_cut_short_runs_again_on_the_new_machine_and_answers_once(world: World) -> None:
    there = sentinel_of(world, "a")
    sentinel_of(world, "b")
    world["a"].agent.gate.clear()
    await send(world, "t", "slow")
    await until(lambda: world["a"].agent.runs_of("slow"), "the agent at work")
    assert (await there.hand_off("b")).outcome == "awake"
    await until(lambda: world.receiver.texts, "answered")
    assert world.receiver.texts == ["b: slow"]


async def test_a_handoff_that_aborts_goes_on_where_it_was(world: World) -> None:
    there = sentinel_of(world, "a")
    sentinel_of(world, "b")
    world["a"].agent.gate.clear()
    await send(world, "t", "slow")
    await until(lambda: world["a"].agent.runs_of("slow"), "the agent at work")
    world["a"].events.listen(
        lambda event: world.network.cut("a", "b") if event.data.get("step") == "drained" else None
    )
    assert (await there.hand_off("b")).outcome == "aborted"
    world["a"].agent.gate.set()
    world["a"].authority.electorate()
    await until(lambda: world.receiver.texts, "answered")
    assert world.receiver.texts == ["a: slow"]
    await send(world, "t", "next")
    await until(lambda: len(world.receiver.texts) == 2, "taken in again")


async def test_work_that_only_waits_ends_the_drain_at_once(world: World) -> None:
    machine: Machine = world["a"]
    machine.agent.gate.clear()
    await send(world, "t", "pinned elsewhere")
    await until(lambda: machine.delivery.running, "waiting")
    async with asyncio.timeout(5):
        await drain(machine.delivery, lambda topic: 1, within=60.0)
    assert machine.delivery.running == {}
    await machine.delivery.resume()
    machine.agent.gate.set()
    await until(lambda: world.receiver.texts, "answered after all")


class Matched:
    """Compares with a buffer, as the live tail's transport does once it has caught up."""

    def __init__(self, buffer: LiveTailBuffer) -> None:
        self._buffer = buffer

    async def match(self, manifest: TailManifest, within: float) -> list[str]:
        return await self._buffer.differing(manifest)


async def test_the_real_conversation_and_ledger_are_recomputed_from_the_standby_s_own_stores(
    world: World, tmp_path: Path
) -> None:
    databases = [SqliteDatabase.open(tmp_path / f"tail-{name}.db") for name in "ab"]
    buffers = [await LiveTailBuffer.open(database, SystemClock(), 10_000) for database in databases]
    ours, theirs = (
        Copies(buffer, Matched(buffer), world[name].ledger.log, stand_ins.State(), TailManifest, Mark)
        for name, buffer in zip("ab", buffers, strict=True)
    )
    await send(world, "42", "hello")
    await until(lambda: world.receiver.texts, "answered")
    line = Line("42", 1, "user", "hello", "2026-01-01T00:00:00.000Z", "k", None, "a", 1)
    buffers[0].stage(1, line)
    manifest = await ours.manifest()
    with pytest.raises(InstarError) as caught:
        await theirs.confirm(manifest, 1.0)
    assert (caught.value.code, caught.value.extra["topics"]) == ("copy-differs", ["42"])
    await buffers[1].apply([await buffers[0].batch(buffers[1].head, 1_000)])
    await theirs.confirm(manifest, 1.0)
    world.network.isolate("b")
    await world["a"].ledger.set_placement(Placement("42", "a", 1, 1, "pinned", "a"))
    with pytest.raises(InstarError) as caught:
        await theirs.confirm(await ours.manifest(), 0.05)
    assert caught.value.code == "ledger-behind"
    for database in databases:
        await database.close()


async def test_two_confirmations_at_once_both_see_the_ledger_arrive() -> None:
    class Slow(stand_ins.Ledger):
        async def greatest_common(self, theirs: tuple[stand_ins.Mark, ...]) -> stand_ins.Mark:
            found = await super().greatest_common(theirs)
            for _ in range(5):  # a read of the database takes its time
                await asyncio.sleep(0)
            return found

    ours, theirs, tail = Slow(), Slow(), stand_ins.Tail()
    ours.append(b"one")
    manifest = await Copies(
        tail, tail, ours, stand_ins.State(), stand_ins.TailManifest, stand_ins.Mark
    ).manifest()
    copies = Copies(tail, tail, theirs, stand_ins.State(), stand_ins.TailManifest, stand_ins.Mark)
    first = asyncio.create_task(copies.confirm(manifest, 1.0))
    await asyncio.sleep(0)  # it has looked in vain, and is about to wait
    theirs.append(b"one")
    await asyncio.gather(first, copies.confirm(manifest, 1.0))
