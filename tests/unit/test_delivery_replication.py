"""Replication between machines: what an acknowledgement stands on, and how logs that parted meet again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from instar_node.clock import SystemClock
from instar_node.contracts import Lane, LogPosition, PeerError, Placement, RunResult
from instar_node.delivery import log, stream
from instar_node.delivery.acks import AckGate
from instar_node.delivery.entries import GENESIS, Reported, make_entry
from instar_node.delivery.state import Outcome
from instar_node.delivery.wire import (
    ReplicaAck,
    ReplicaAppend,
    ReplicaBegin,
    ReplicaBroken,
    ReplicaFollow,
    ReplicaMarks,
    ReplicaReady,
)
from instar_node.errors import InstarError
from tests.unit.delivery_world import FakeAuthority, FakeMesh, Machine, World, running_world, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, "abc") as running:
        yield running


async def level(world: World, *names: str) -> None:
    """All have the same log, begun in the newest epoch, in which nothing is left to do."""
    first, *others = (world[name].ledger.log for name in names)
    epoch = world[names[0]].authority.epoch
    await until(lambda: first.state.head.epoch == epoch, "opened")
    await until(lambda: all(log.state.head == first.state.head for log in others), "level")


async def finished(world: World, *names: str) -> None:
    """Every message known to any of them is answered, and all know it."""
    await until(lambda: not any(world[name].ledger.log.state.open for name in names), "finished")
    await level(world, *names)


async def never(task: asyncio.Task[object]) -> None:
    """The task stays unfinished while everything else on the loop runs dry."""
    done, _ = await asyncio.wait({task}, timeout=0.1)
    assert not done


def submit(world: World, name: str, key: str, text: str = "hi", topic: str = "t") -> asyncio.Task[object]:
    return asyncio.ensure_future(world[name].delivery.submit(topic, text, key))


async def test_an_acknowledgement_means_durable_on_the_whole_electorate(world: World) -> None:
    world["a"].agent.gate.clear()
    world.lead("a", 1, "bc")
    await submit(world, "a", "k1")
    for name in "abc":
        await world[name].kill()
        await world[name].boot()
        assert await world[name].state("t", "k1") in ("received", "processing")


async def test_no_acknowledgement_while_one_machine_of_the_electorate_has_not_synced(world: World) -> None:
    world.lead("a", 1, "bc")
    await level(world, "a", "b", "c")
    world.network.hold("a", "c")
    task = submit(world, "a", "k1")
    await never(task)
    world.network.release("a", "c")
    await task
    assert await world["c"].state("t", "k1") is not None


async def test_a_standbys_acknowledgement_comes_after_its_own_sync(world: World) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    block = asyncio.Event()
    write = world["b"].db.write

    async def slow_write(job):  # type: ignore[no-untyped-def]
        await block.wait()
        return await write(job)

    world["b"].db.write = slow_write  # type: ignore[method-assign]
    task = submit(world, "a", "k1")
    await never(task)
    block.set()
    await task


def sent_entries(world: World, source: str, target: str) -> list[LogPosition]:
    appends = [m for peer, m in world[source].mesh.sent if peer == target and isinstance(m, ReplicaAppend)]
    return [entry.position for append in appends for entry in append.entries]


async def test_entries_are_on_their_way_once_to_each_machine_before_anybody_here_hears_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lead("a", 1, "bc")
    await level(world, "a", "b", "c")
    monkeypatch.setattr(stream, "BATCH_BYTES", 1)  # each entry in a message of its own
    for standby in "bc":
        world.network.hold(standby, "a")  # and nobody acknowledges any of them
    world["a"].mesh.sent.clear()
    heard: list[LogPosition] = []
    late: list[LogPosition] = []

    def listen(outcome: Outcome) -> None:
        heard.extend(entry.position for entry in outcome.entries)
        if not sent_entries(world, "a", "b") == sent_entries(world, "a", "c") == heard:
            late.append(heard[-1])

    world["a"].ledger.log._listeners.insert(0, listen)
    tasks = [submit(world, "a", key) for key in ("k1", "k2", "k3")]
    await until(lambda: len(heard) >= 3, "durable here")
    for standby in "bc":
        world.network.release(standby, "a")
    await asyncio.gather(*tasks)
    await finished(world, "a", "b", "c")
    assert sent_entries(world, "a", "b") == sent_entries(world, "a", "c") == heard
    assert late == []


async def test_no_more_is_on_the_way_to_a_standby_than_its_window(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BATCH_BYTES", "WINDOW_BYTES"):
        monkeypatch.setattr(stream, name, 1)  # one entry, and the next when that is acknowledged
    send, last, early = world["a"].mesh.send, LogPosition(0, 0), 0

    def look(peer: str, message: Struct, lane: Lane = Lane.NORMAL) -> bool:
        nonlocal last, early
        if peer == "b" and isinstance(message, ReplicaAppend) and message.entries:
            early += world["b"].ledger.head < last
            last = message.entries[-1].position
        return send(peer, message)

    monkeypatch.setattr(world["a"].mesh, "send", look)
    world.network.isolate("b")
    world.lead("a", 1)
    world["b"].authority.observe("a", 1)
    await asyncio.gather(*(submit(world, "a", f"missed{n}") for n in range(4)))
    world.network.join("a", "b")
    await finished(world, "a", "b")
    world["a"].authority.electorate("b")
    await asyncio.gather(*(submit(world, "a", f"k{n}") for n in range(4)))
    await finished(world, "a", "b")
    assert early == 0


@pytest.mark.parametrize("refusals", [1, 2])
async def test_what_the_tunnel_does_not_take_is_sent_a_moment_later(
    world: World, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    send, left = world["a"].mesh.send, refusals

    def full(peer: str, message: Struct, lane: Lane = Lane.NORMAL) -> bool:
        nonlocal left
        if peer == "b" and isinstance(message, ReplicaAppend) and message.entries and left:
            left -= 1
            return False
        return send(peer, message)

    monkeypatch.setattr(world["a"].mesh, "send", full)
    await submit(world, "a", "k1")
    assert left == 0
    assert world["a"].slow == []  # nobody had to complain first


async def test_what_is_no_longer_in_memory_is_read_and_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    monkeypatch.setattr(log, "RECENT_BYTES", 0)
    await submit(world, "a", "k1")
    assert world["a"].slow == []


async def test_a_stream_that_begins_anew_sends_nothing_before_the_logs_were_compared(world: World) -> None:
    """What the standby took meanwhile, and said so, it would cut off again."""
    world.lead("a", 1, "b")
    await submit(world, "a", "k0")
    await finished(world, "a", "b")
    world["a"].mesh.sent.clear()
    session = max(m.session for _, m in world["b"].mesh.sent if isinstance(m, ReplicaAck))
    world["b"].mesh.send("a", ReplicaBroken(session, "the test says so"))
    world.network.hold("b", "a")
    await until(lambda: any(isinstance(m, ReplicaBegin) for _, m in world["a"].mesh.sent))
    await never(submit(world, "a", "k1"))
    assert sent_entries(world, "a", "b") == []
    world.network.release("b", "a")
    await finished(world, "a", "b")
    assert await world["b"].state("t", "k1") == "committed"


async def test_what_may_act_starts_only_on_what_the_whole_electorate_has(world: World) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    holder = world["a"]
    for harmless, command in ((False, False), (True, True)):
        holder.agent.harmless = harmless
        holder.delivery._work._at_once = lambda text, command=command: command  # type: ignore[misc]
        world.network.hold("a", "b")
        text = f"{harmless}"
        await never(submit(world, "a", text, text))
        assert holder.ledger.open_message(f"local:t:{text}") is not None  # durable here
        assert holder.agent.runs_of(text) == 0
        world.network.release("a", "b")
        await finished(world, "a", "b")
        assert holder.agent.runs_of(text) == 1


async def test_an_attempt_that_may_act_waits_although_an_earlier_one_did_not(world: World) -> None:
    """The topic has moved meanwhile, say, to a machine that has another kind of agent."""
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    agent = world["a"].agent
    agent.harmless, agent.results = True, [RunResult("cancelled")]
    agent.gate.clear()
    world.network.hold("a", "b")
    task = submit(world, "a", "k1")
    await until(lambda: agent.requests)
    agent.harmless = False
    agent.gate.set()
    await never(task)
    assert agent.results == []
    assert len(agent.requests) == 1
    world.network.release("a", "b")
    await finished(world, "a", "b")
    assert world.receiver.texts == ["a: hi"]


async def test_an_agent_that_waited_for_the_electorate_does_not_begin_on_what_a_person_answered(
    world: World,
) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    world.network.hold("a", "b")
    task = submit(world, "a", "k1")
    await never(task)
    answer = asyncio.ensure_future(world["a"].delivery.reply("t", "k1", "a person's"))
    await never(answer)
    world.network.release("a", "b")
    await finished(world, "a", "b")
    await asyncio.gather(task, answer)
    assert world["a"].agent.requests == []
    assert world.receiver.texts == ["a person's"]


async def test_an_answer_that_was_made_early_leaves_only_when_the_whole_electorate_has_it(
    world: World,
) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    holder = world["a"]
    holder.agent.harmless = True
    world.network.hold("a", "b")
    await never(submit(world, "a", "k1"))
    assert holder.agent.runs_of("hi") == 1
    assert await holder.state("t", "k1") == "reserved"
    assert world.receiver.attempts == []
    assert [line["kind"] for line in holder.sink.lines] == ["user"]
    world.network.release("a", "b")
    await finished(world, "a", "b")
    assert world.receiver.texts == ["a: hi"]


async def test_the_electorate_is_read_at_the_instant_of_the_acknowledgement(world: World) -> None:
    world.lead("a", 1, "bc")
    await level(world, "a", "b", "c")
    world.network.cut("a", "c")
    benched = submit(world, "a", "k1")
    await never(benched)
    world["a"].authority.electorate("b")
    await benched
    world.network.hold("a", "b")
    world["a"].authority.electorate()
    await submit(world, "a", "k2")
    admitted = submit(world, "a", "k3")
    world["a"].authority.electorate("b")
    await never(admitted)
    world.network.release("a", "b")
    await admitted


async def test_no_acknowledgement_without_the_lease(world: World) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    world.network.hold("b", "a")
    task = submit(world, "a", "k1")
    await never(task)
    world["a"].authority.lapse()
    with pytest.raises(InstarError) as lost:
        await task
    assert lost.value.code == "lease-lost"


async def test_an_ack_that_arrives_after_the_lease_lapsed_unnoticed_does_not_count(world: World) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    world.network.hold("b", "a")
    task = submit(world, "a", "k1")
    await never(task)
    world["a"].authority.lapse(announce=False)
    world.network.release("b", "a")
    with pytest.raises(InstarError) as lost:
        await task
    assert lost.value.code == "lease-lost"


async def test_a_wait_of_one_epoch_is_not_answered_in_the_next(world: World) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    world.network.hold("b", "a")
    task = submit(world, "a", "k1")
    await never(task)
    world["a"].authority.become_holder(2, "b")
    world["b"].authority.observe("a", 2)
    with pytest.raises(InstarError, match="lease ended"):
        await task


async def test_a_wait_of_one_epoch_is_not_answered_when_the_next_is_met_by_another_wait() -> None:
    authority, reached = FakeAuthority("a"), LogPosition(0, 0)
    gate = AckGate(authority, SystemClock(), lambda peer: reached, lambda: reached, lambda peer: None, 1_000)
    authority.become_holder(1)
    before = asyncio.ensure_future(gate.wait(LogPosition(1, 1)))
    await asyncio.sleep(0)
    authority.change_silently(2)  # and the gate hears of nothing
    after = asyncio.ensure_future(gate.wait(LogPosition(2, 1)))
    await asyncio.sleep(0)
    reached = LogPosition(2, 1)
    gate.evaluate()
    with pytest.raises(InstarError, match="lease ended"):
        await before
    await after
    gate.stop()


async def test_who_keeps_an_acknowledgement_waiting_is_named(world: World) -> None:
    world.lead("a", 1, "bc")
    await level(world, "a", "b", "c")
    world.network.hold("c", "a")
    task = submit(world, "a", "k1")
    await until(lambda: world["a"].slow)
    assert set(world["a"].slow) == {"c"}
    world["a"].authority.electorate("b")
    await task


async def test_what_was_lost_without_a_cut_is_sent_again(world: World) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    world.network.lossy.add(("a", "b"))
    task = submit(world, "a", "k1")
    await never(task)
    world.network.lossy.clear()
    await task
    assert world["a"].slow


async def test_a_machine_that_was_away_gets_everything_it_missed(world: World) -> None:
    world.lead("a", 1)
    world.network.cut("a", "c")
    for n in range(20):
        await submit(world, "a", f"k{n}", "x" * 40_000)
    assert world["a"].transport.behind("c") is None
    assert not world["a"].transport.caught_up("c")
    world.network.join("a", "c")
    await until(lambda: not world["a"].ledger.log.state.open)
    await level(world, "a", "b", "c")
    await until(lambda: world["a"].transport.behind("c") == (0, 0))
    assert world["a"].transport.caught_up("c")
    assert await world["c"].lines("t") == await world["a"].lines("t")


async def test_lag_is_counted_in_entries_and_bytes(world: World) -> None:
    world.lead("a", 1)
    await level(world, "a", "b")
    await until(lambda: world["a"].transport.behind("b") == (0, 0))
    world.network.hold("b", "a")
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1", "x" * 1_000)
    behind = world["a"].transport.behind("b")
    assert behind is not None
    assert behind.entries >= 1
    assert behind.bytes > 1_000
    assert not world["a"].transport.caught_up("b")


async def test_a_tunnel_that_was_replaced_unnoticed_loses_nothing(world: World) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b")
    world.network.lossy.add(("a", "b"))
    before = len(world["a"].mesh.sent)
    task = submit(world, "a", "k1")
    await until(lambda: len(world["a"].mesh.sent) > before)
    world.network.lossy.clear()
    world["a"].mesh.announce("b", True)
    await task
    assert world["a"].slow == []


async def test_who_lacks_something_acknowledged_is_not_caught_up(world: World) -> None:
    world.lead("a", 1, "b")
    world["a"].agent.gate.clear()
    await level(world, "a", "b", "c")
    world.network.hold("a", "c")
    await submit(world, "a", "k1")
    assert not world["a"].transport.caught_up("c")
    world.network.release("a", "c")
    await until(lambda: world["a"].transport.caught_up("c"))


async def test_who_lacks_something_acknowledged_in_an_older_epoch_is_not_caught_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        world[name].agent.gate.clear()
    world.network.isolate("c")
    world.lead("a", 1, "b")
    await submit(world, "a", "k1")
    world.network.isolate("a")
    send, held = world["b"].mesh.send, True

    def under_way(peer: str, message: Struct, lane: Lane = Lane.NORMAL) -> bool:
        return (held and isinstance(message, ReplicaAppend)) or send(peer, message)

    monkeypatch.setattr(world["b"].mesh, "send", under_way)
    world["c"].authority.observe("b", 2)
    world["b"].authority.become_holder(2, "a")
    world.network.join("b", "c")
    await until(lambda: world["b"].transport.behind("c") is not None, "joined")
    assert not world["b"].transport.caught_up("c")
    held = False
    world["b"].mesh.announce("c", True)
    await until(lambda: world["b"].transport.caught_up("c"), "caught up")


async def test_entries_of_a_stream_that_was_not_begun_are_refused(world: World) -> None:
    world.lead("a", 1)
    await level(world, "a", "c")
    head = world["c"].ledger.log.state.head
    fitting = make_entry(head, 1, "reported", Reported("x"))
    world["a"].mesh.send("c", ReplicaAppend(1, 99, (fitting,), LogPosition(0, 0)))
    await until(lambda: any(isinstance(m, ReplicaBroken) for _, m in world["c"].mesh.sent))
    assert world["c"].ledger.log.state.head == head


async def test_a_log_is_cut_back_once_a_stream_and_keeps_what_it_acknowledged_since(world: World) -> None:
    world["a"].agent.gate.clear()
    asked: list[ReplicaFollow] = []
    request = world["a"].mesh.request

    async def noted(peer: str, message: Struct, *args: Any, **options: Any) -> Any:
        if peer == "b" and isinstance(message, ReplicaFollow):
            asked.append(message)
        return await request(peer, message, *args, **options)

    world["a"].mesh.request = noted  # type: ignore[method-assign]
    world.lead("a", 1, "b")
    await submit(world, "a", "k1")
    await level(world, "a", "b")
    head = world["b"].ledger.log.state.head
    assert head > asked[-1].common
    with pytest.raises(PeerError) as refused:
        await request("b", asked[-1], ReplicaReady, within=5)
    assert refused.value.code == "stale-session"
    assert world["b"].ledger.log.state.head == head


async def test_a_stale_holders_stream_is_refused_and_counted(world: World) -> None:
    world.lead("a", 1, "b")
    await submit(world, "a", "k1")
    await level(world, "a", "b", "c")
    for name in "bc":
        world[name].authority.observe("b", 2)
    world["b"].authority.become_holder(2)
    await level(world, "b", "c")
    head = world["c"].ledger.log.state.head
    mesh = world["a"].mesh
    with pytest.raises(PeerError) as refused:
        await mesh.request("c", ReplicaBegin(1, 99, ()), ReplicaMarks, within=5)
    assert refused.value.code == "stale-epoch"
    mesh.send("c", ReplicaAppend(1, 99, (), LogPosition(0, 0)))
    mesh.send("c", ReplicaAppend(2, 99, (), LogPosition(0, 0)))
    await until(lambda: world["c"].transport.refused >= 3)
    assert world["c"].ledger.log.state.head == head


async def test_a_machine_that_does_not_know_the_new_holder_yet_asks_it_to_begin_when_it_does(
    world: World,
) -> None:
    world.lead("a", 1)
    await level(world, "a", "b", "c")
    world["b"].authority.become_holder(2)
    await until(lambda: world["c"].transport.refused)
    assert world["c"].ledger.head.epoch == 1
    world["c"].authority.observe("b", 2)
    await level(world, "b", "c")


async def test_a_machine_that_acts_follows_nobody(world: World) -> None:
    world.lead("a", 1)
    await until(lambda: world["a"].ledger.head.epoch == 1)
    with pytest.raises(PeerError) as refused:
        await world["b"].mesh.request("a", ReplicaBegin(1, 5, ()), ReplicaMarks, within=5)
    assert refused.value.code == "stale-epoch"


async def test_a_log_that_parted_is_cut_and_what_only_it_had_is_taken_up(world: World) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b", "c")
    world["a"].agent.gate.clear()
    world.network.isolate("a")
    lonely = submit(world, "a", "lonely", "only a has this")
    await until(lambda: "local:t:lonely" in world["a"].ledger.log.state.open)
    world["c"].authority.observe("b", 2)
    world["b"].authority.become_holder(2, "c")
    await submit(world, "b", "k2", "meanwhile")
    world["a"].authority.observe("b", 2)
    with pytest.raises(InstarError):
        await lonely
    await world.connect("a")
    await until(lambda: len(world.receiver.taken) == 2)
    await finished(world, "a", "b", "c")
    assert sorted(world.receiver.texts) == ["b: meanwhile", "b: only a has this"]
    expected = await world["b"].lines("t")
    assert expected[0] == ("user", "meanwhile")
    assert ("user", "only a has this") in expected
    assert await world["a"].lines("t") == await world["c"].lines("t") == expected
    assert len(await world["b"].ledger.log.read_after(GENESIS.position, 1 << 20)) == len(
        await world["a"].ledger.log.read_after(GENESIS.position, 1 << 20)
    )


async def test_rows_handed_up_survive_the_death_of_the_holder_that_took_them(world: World) -> None:
    """a's lonely row goes to b, b dies before it streams it to anybody: a still has it when a leads again."""
    world.lead("a", 1)
    await level(world, "a", "b", "c")
    world["a"].agent.gate.clear()
    world["b"].agent.gate.clear()
    world.network.isolate("a")
    await submit(world, "a", "lonely", "only a has this")
    world["b"].authority.become_holder(2)
    world["a"].authority.observe("b", 2)
    cut: list[int] = []
    mesh = world["b"].mesh

    def send_no_entries(peer: str, message: object, lane: object = None) -> bool:
        if isinstance(message, ReplicaAppend) and message.entries:
            cut.append(1)
            return True
        return FakeMesh.send(mesh, peer, message)  # type: ignore[arg-type]

    mesh.send = send_no_entries  # type: ignore[method-assign]
    world.network.join("a", "b")
    await until(lambda: cut)
    assert "local:t:lonely" in world["b"].ledger.log.state.open
    await world["b"].kill()
    world["a"].agent.gate.set()
    world.network.join("a", "c")
    world["c"].authority.observe("a", 3)
    world["a"].authority.become_holder(3, "c")
    await until(lambda: world.receiver.texts == ["a: only a has this"])
    await finished(world, "a", "c")
    assert await world["c"].lines("t") == [("user", "only a has this"), ("agent", "a: only a has this")]


async def place(machine: Machine, placement: Placement) -> None:
    await machine.ledger.ensure_open()
    await machine.transport.wait_replicated(await machine.ledger.set_placement(placement))


async def test_placements_are_acknowledged_when_replicated_survive_and_never_roll_back(world: World) -> None:
    world.lead("a", 1, "b")
    await place(world["a"], Placement("t", "b", 1, 1, "pinned", "b"))
    assert world["b"].ledger.placement("t") == Placement("t", "b", 1, 1, "pinned", "b")
    with pytest.raises(InstarError, match="placed anew"):
        await place(world["a"], Placement("t", "c", 1, 1, "placed"))
    world.network.isolate("a")
    world["c"].authority.observe("b", 2)
    world["b"].authority.become_holder(2)
    await world["a"].ledger.set_placement(Placement("t", "a", 1, 2, "placed"))
    await place(world["b"], Placement("t", "c", 2, 1, "pinned", "c"))
    world["a"].authority.observe("b", 2)
    await world.connect("a")
    await level(world, "a", "b", "c")
    for name in "abc":
        owner = world[name].ledger.placement("t")
        assert owner is not None
        assert owner.owner == "c"


async def test_a_disk_that_went_back_in_time_is_noticed_and_mended(world: World, tmp_path: Path) -> None:
    world.lead("a", 1)
    await submit(world, "a", "k1")
    await until(lambda: len(world.receiver.taken) == 1)
    await finished(world, "a", "b")
    await world["a"].kill()
    old = {file: file.read_bytes() for file in tmp_path.glob("a.db*")}
    await world["a"].boot()
    world.lead("a", 1)
    await world.connect("a")
    await submit(world, "a", "k2")
    await until(lambda: len(world.receiver.taken) == 2)
    await finished(
        world, "a", "b"
    )  # killed before the mark, it would rightly send once more, with the same key
    await world["a"].kill()
    for left in tmp_path.glob("a.db*"):
        left.unlink()
    for file, content in old.items():
        file.write_bytes(content)
    await world["a"].boot()
    alarms: list[str] = []
    world["a"].events.listen(lambda e: alarms.append(e.text) if e.kind == "ledger" else None)
    world.lead("a", 1)
    await world.connect("a")
    await until(lambda: alarms)
    assert "went back in time" in alarms[0]
    await until(lambda: world["a"].ledger.topics()["t"].seq == 4)
    await finished(world, "a", "b", "c")
    assert await world["a"].state("t", "k2") == "committed"
    assert [r.reply_to for r in world.receiver.attempts] == ["k1", "k2"]


class GoneBack:
    """A world in which a's disk forgot the message k2, all of its life, after a answered it.

    b saw all of it; c was cut off when k2 was received and not yet answered.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.alarms: list[str] = []

    async def prepare(self) -> None:
        world = self.world
        world.lead("a", 1)
        await submit(world, "a", "k1")
        await until(lambda: len(world.receiver.taken) == 1)
        await finished(world, "a", "b", "c")
        await world["a"].kill()
        old = {file: file.read_bytes() for file in world.folder.glob("a.db*")}
        await world["a"].boot()
        world["a"].agent.gate.clear()
        world.lead("a", 1)
        await world.connect("a")
        await submit(world, "a", "k2")
        await until(lambda: world["a"].agent.requests)
        await level(world, "a", "b", "c")
        world.network.cut("a", "c")
        world["a"].agent.gate.set()
        await until(lambda: len(world.receiver.taken) == 2)
        await finished(world, "a", "b")
        await world["a"].kill()
        for file in world.folder.glob("a.db*"):
            file.unlink()
        for file, content in old.items():
            file.write_bytes(content)
        await world["a"].boot()
        world["a"].events.listen(lambda e: self.alarms.append(e.text) if e.kind == "ledger" else None)


@pytest.mark.parametrize("epoch", [1, 2])
async def test_a_holder_whose_disk_went_back_acts_on_nothing_before_all_who_are_there_reported(
    world: World, epoch: int
) -> None:
    """c hands up that k2 was received; b, which knows that it was answered, is heard much later."""
    gone = GoneBack(world)
    await gone.prepare()
    world.network.hold("b", "a")
    world.lead("a", epoch)
    await world.connect("a")
    await until(lambda: world["a"].transport.caught_up("c"), "c reported")
    assert "went back in time" in gone.alarms[0]
    await never(asyncio.ensure_future(until(lambda: world["a"].agent.requests)))
    world.network.release("b", "a")
    await finished(world, "a", "b", "c")
    assert await world["a"].state("t", "k2") == "committed"
    assert world["a"].agent.requests == []
    assert [r.reply_to for r in world.receiver.attempts] == ["k1", "k2"]


async def test_a_disk_that_goes_back_is_noticed_while_the_stale_ledger_is_at_work(world: World) -> None:
    """Nobody was within reach at first: what the stale copy began ends when the first machine comes."""
    gone = GoneBack(world)
    await gone.prepare()
    world["a"].agent.gate.clear()
    world.lead("a", 2)
    await world["a"].delivery.submit("t", "asked again", "k2")
    await until(lambda: world["a"].agent.requests)
    world.network.hold("b", "a")
    await world.connect("a")
    await until(lambda: world["a"].agent.cancelled, "the run on the stale copy ends")
    world["a"].agent.gate.set()
    world.network.release("b", "a")
    await finished(world, "a", "b", "c")
    assert [r.reply_to for r in world.receiver.attempts] == ["k1", "k2"]


@pytest.mark.parametrize("deduplicates", [True, False])
async def test_what_a_machine_out_of_reach_may_have_answered_is_sent_with_its_own_key_or_held(
    tmp_path: Path, deduplicates: bool
) -> None:
    """a went back and only c is there, which saw k2 received; b, which saw it answered, is away."""
    async with running_world(tmp_path, "abc", deduplicates) as world:
        gone = GoneBack(world)
        await gone.prepare()
        world.network.isolate("b")
        world.lead("a", 2)
        world.network.join("a", "c")
        if deduplicates:
            await until(lambda: len(world.receiver.attempts) == 3)
        else:
            await until(lambda: [i.state for i in world["a"].delivery.outbox_items()] == ["undecided"])
        assert world["a"].ledger.incomplete == {"b"}
        assert len(world.receiver.taken) == 2
        world["b"].authority.observe("a", 2)
        world.network.join("a", "b")
        world.network.join("b", "c")
        await finished(world, "a", "b", "c")
        assert world["a"].ledger.incomplete == frozenset()
        assert await world["a"].state("t", "k2") == "committed"
        assert len(world.receiver.taken) == 2


async def test_a_standby_whose_disk_went_back_is_benched_until_it_is_level(
    world: World, tmp_path: Path
) -> None:
    world.lead("a", 1, "b")
    await level(world, "a", "b", "c")
    await world["b"].kill()
    old = {file: file.read_bytes() for file in tmp_path.glob("b.db*")}
    await world["b"].boot()
    world["b"].authority.observe("a", 1)
    await world.connect("b")
    await submit(world, "a", "k1")
    await finished(world, "a", "b")
    await world["b"].kill()
    for file in tmp_path.glob("b.db*"):
        file.unlink()
    for file, content in old.items():
        file.write_bytes(content)
    await world["b"].boot()
    alarms: list[str] = []
    world["a"].events.listen(lambda e: alarms.append(e.text) if e.kind == "ledger" else None)
    world["a"].authority.electorate()  # nobody waits for b: only its ledger can betray it
    world["a"].slow.clear()
    world["b"].authority.observe("a", 1)
    await world.connect("b")
    await until(lambda: alarms)
    assert alarms[0].startswith("the ledger of b went back in time")
    assert world["a"].slow == ["b"]
    await until(lambda: world["a"].transport.caught_up("b"))
    await finished(world, "a", "b")
    assert await world["b"].state("t", "k1") == "committed"


async def test_what_is_handed_up_in_several_pages_is_answered_in_the_order_in_which_it_came(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.delivery.follower.BATCH_BYTES", 1)
    world.lead("a", 1)
    await level(world, "a", "b", "c")
    world["a"].agent.gate.clear()
    world.network.isolate("a")
    for key in ("k3", "k1", "k2"):
        await submit(world, "a", key, key)
    world["c"].authority.observe("b", 2)
    world["b"].authority.become_holder(2, "c")
    world["a"].authority.observe("b", 2)
    await world.connect("a")
    await finished(world, "a", "b", "c")
    assert world.receiver.texts == ["b: k3", "b: k1", "b: k2"]
    users = [text for role, text in await world["b"].lines("t") if role == "user"]
    assert users == ["k3", "k1", "k2"]


async def test_a_silent_machine_delays_what_is_open_for_a_moment_only(world: World) -> None:
    world.lead("a", 1, "b")
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1")
    await level(world, "a", "b", "c")
    world.network.hold("c", "b")
    await world["a"].kill()
    world["b"].authority.become_holder(2)
    world["c"].authority.observe("b", 2)
    await until(lambda: world.receiver.texts == ["b: hi"])
    assert not world["b"].transport.caught_up("c")


async def test_a_witness_keeps_no_copy(tmp_path: Path) -> None:
    async with running_world(tmp_path, "aw") as world:
        world.lead("a", 1)
        await submit(world, "a", "k1")
        await until(lambda: world.receiver.taken)
        assert [message for peer, message in world["a"].mesh.sent if peer == "w"] == []
