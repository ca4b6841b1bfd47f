"""A machine dies or loses the lease in the middle: every message is answered, and once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instar_node.contracts import RunResult
from instar_node.delivery.contract import Fenced, OutgoingReply, SendOutcome
from instar_node.errors import InstarError
from tests.unit.delivery_world import World, running_world, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, "abc") as running:
        yield running


async def submit(world: World, name: str, key: str, text: str | None = None) -> None:
    await world[name].delivery.submit("t", text or key, key)


async def holder_dies(world: World, dead: str, heir: str, epoch: int, electorate: str = "") -> None:
    await world[dead].kill()
    world.lead(heir, epoch, electorate)


@pytest.mark.parametrize("heir", ["b", "c"])
async def test_any_in_sync_machine_runs_what_was_received_or_under_way(world: World, heir: str) -> None:
    world.lead("a", 1, "bc")
    world["a"].agent.gate.clear()
    for key in ("k1", "k2", "k3"):
        await submit(world, "a", key)
    await until(lambda: world["a"].agent.requests)
    await holder_dies(world, "a", heir, 2)
    await until(lambda: len(world.receiver.taken) == 3)
    assert world.receiver.texts == [f"{heir}: k1", f"{heir}: k2", f"{heir}: k3"]
    assert {request.epoch for request in world[heir].agent.requests} == {2}


@pytest.mark.parametrize("heir", ["b", "c"])
async def test_a_reserved_answer_is_sent_by_the_next_holder_and_never_run_again(
    world: World, heir: str
) -> None:
    world.lead("a", 1, "bc")
    world["a"].channel.before.clear()
    await submit(world, "a", "k1")
    await until(lambda: all(world[n].ledger.outbox() for n in "abc"))
    await holder_dies(world, "a", heir, 2)
    await until(lambda: world.receiver.taken)
    assert world.receiver.texts == ["a: k1"]
    assert world.receiver.taken[0].epoch == 2
    assert world[heir].agent.requests == []


async def test_an_answer_sent_but_not_yet_marked_reaches_a_deduplicating_receiver_once(world: World) -> None:
    world.lead("a", 1, "b")
    sending = asyncio.Event()

    async def send_and_hang(reply: OutgoingReply) -> SendOutcome:
        world.receiver.take(reply)
        sending.set()
        await asyncio.Event().wait()
        raise AssertionError

    world["a"].channel.send = send_and_hang  # type: ignore[method-assign]
    await submit(world, "a", "k1")
    await sending.wait()
    await holder_dies(world, "a", "b", 2)
    await until(lambda: not world["b"].ledger.log.state.open)
    assert len(world.receiver.attempts) == 2
    assert len({reply.reply_id for reply in world.receiver.attempts}) == 1
    assert world.receiver.texts == ["a: k1"]


async def test_no_answer_is_sent_before_the_electorate_has_its_reservation(world: World) -> None:
    world.lead("a", 1, "b")
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1")
    await until(lambda: world["a"].agent.requests)
    world.network.hold("b", "a")
    world["a"].agent.gate.set()
    await until(lambda: world["a"].ledger.outbox())
    await asyncio.sleep(0.05)
    assert world.receiver.attempts == []
    world.network.release("b", "a")
    await until(lambda: world.receiver.taken)


async def test_the_same_message_offered_to_the_next_holder_is_known_and_not_run_again(world: World) -> None:
    world.lead("a", 1, "b")
    first = await world["a"].delivery.submit("t", "hello", "k1")
    await until(lambda: world["b"].ledger.topics().get("t") and world["b"].ledger.topics()["t"].seq == 2)
    await holder_dies(world, "a", "b", 2)
    again = await world["b"].delivery.submit("t", "hello", "k1")
    assert (again.key, again.seq, again.duplicate) == (first.key, first.seq, True)
    with pytest.raises(InstarError) as reused:
        await world["b"].delivery.submit("t", "something else", "k1")
    assert (reused.value.code, reused.value.status) == ("key-reused", 409)
    assert world.receiver.texts == ["a: hello"]


async def test_a_fenced_holder_stops_its_run_and_the_answer_comes_from_the_next_once(world: World) -> None:
    world.lead("a", 1, "bc")
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1")
    await until(lambda: world["a"].agent.requests)
    world["a"].authority.lapse()
    assert world["a"].agent.cancelled == ["local:t:k1"]
    world["a"].agent.gate.set()
    world.lead("b", 2, "ac")
    await until(lambda: world.receiver.taken)
    assert world.receiver.texts == ["b: k1"]


async def test_a_send_that_ends_after_the_lease_did_is_still_reported_to_the_next_holder(
    tmp_path: Path,
) -> None:
    """Otherwise a receiver without deduplication would leave the next holder undecided."""
    async with running_world(tmp_path, "ab", deduplicates=False) as world:
        world.lead("a", 1, "b")
        world["a"].channel.before.clear()
        await submit(world, "a", "k1")
        await until(lambda: world["a"].channel.under_way)
        world.network.cut("a", "b")
        outbox, key = world["a"].outbox, "local:t:k1"
        world["a"].authority.lapse(announce=False)  # nobody tells delivery: its send goes on
        world["a"].channel.before.set()
        await until(lambda: world["a"].ledger.open_message(key) is None)
        world["b"].authority.become_holder(2)
        await until(lambda: world["b"].ledger.open_message(key).state == "undecided")  # type: ignore[union-attr]
        world["a"].authority.observe("b", 2)
        world.network.join("a", "b")
        await until(lambda: world["b"].ledger.open_message(key) is None)
        assert await world["b"].state("t", "k1") == "committed"
        assert world.receiver.texts == ["a: k1"]
        assert not outbox.trouble
        await until(lambda: world["b"].sink.lines)
        told = [[line["kind"] for line in world[name].sink.lines] for name in "ab"]
        assert told == [["user", "agent"], ["agent"]]


async def test_after_a_restart_in_the_same_epoch_open_work_goes_on(world: World) -> None:
    world.lead("a", 1)
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1")
    await until(lambda: world["a"].agent.requests)
    first = world["a"].agent.requests[0]
    await until(lambda: world["a"].ledger.open_message("local:t:k1").grant.n == first.n)  # type: ignore[union-attr]
    await world["a"].kill()
    await world["a"].boot()
    world.lead("a", 1)
    await until(lambda: world.receiver.taken)
    again = world["a"].agent.requests[0]
    assert (again.epoch, again.n) > (first.epoch, first.n)


async def test_a_lease_that_lapses_and_returns_in_the_same_epoch_loses_nothing(world: World) -> None:
    world.lead("a", 1, "b")
    await submit(world, "a", "k0")
    world.network.hold("b", "a")
    task = asyncio.ensure_future(world["a"].delivery.submit("t", "k1", "k1"))
    await until(lambda: world["a"].ledger.open_message("local:t:k1"))
    world["a"].authority.lapse()
    with pytest.raises(InstarError, match="lease ended"):
        await task
    world.network.release("b", "a")
    world["a"].authority.become_holder(1, "b")
    await until(lambda: world.receiver.texts == ["a: k0", "a: k1"])
    assert (await world["a"].delivery.submit("t", "k1", "k1")).duplicate


async def test_an_answer_on_its_way_to_the_disk_when_the_lease_lapsed_is_not_given_again(
    world: World,
) -> None:
    world.lead("a", 1)
    machine, write, block = world["a"], world["a"].db.write, asyncio.Event()
    machine.agent.gate.clear()
    await submit(world, "a", "k1")
    await until(lambda: all(machine.transport.caught_up(peer) for peer in "bc"), "nobody else writes here")
    await until(lambda: machine.agent.requests and not machine.ledger.log.busy)

    async def slow_write(job):  # type: ignore[no-untyped-def]
        await block.wait()
        return await write(job)

    machine.db.write = slow_write  # type: ignore[method-assign]
    machine.agent.gate.set()
    await until(lambda: machine.ledger.log.busy)
    machine.authority.lapse()
    await asyncio.sleep(0)
    machine.authority.become_holder(1)
    block.set()
    await until(lambda: world.receiver.texts == ["a: k1"])
    assert machine.agent.runs_of("k1") == 1


async def test_an_unannounced_lapse_found_by_a_step_does_not_strand_the_message(world: World) -> None:
    world.lead("a", 1, "b")
    await submit(world, "a", "k0")
    await until(lambda: world.receiver.taken)
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1")
    await until(lambda: len(world["a"].agent.requests) == 2)
    world["a"].authority.lapse(announce=False)
    world["a"].agent.gate.set()
    await until(lambda: not world["a"].delivery.running)
    world["a"].authority.become_holder(1, "b")
    await until(lambda: world.receiver.texts == ["a: k0", "a: k1"])


async def test_a_persons_answer_interrupted_by_an_unannounced_lapse_is_not_stranded(world: World) -> None:
    world["a"].agent.results = [RunResult("waiting")]
    world.lead("a", 1, "b")
    await submit(world, "a", "k1")
    await until(lambda: world["a"].ledger.open_message("local:t:k1").state == "waiting")  # type: ignore[union-attr]
    world.network.hold("b", "a")
    reply = asyncio.ensure_future(world["a"].delivery.reply("t", "k1", "by hand"))
    await until(lambda: world["b"].ledger.outbox())
    world["a"].authority.lapse(announce=False)
    world.network.release("b", "a")
    with pytest.raises(InstarError, match="lease ended"):
        await reply
    world["a"].authority.become_holder(1, "b")
    await until(lambda: world.receiver.texts == ["by hand"])


async def test_an_answer_handed_up_while_the_agent_works_goes_out_instead_of_the_agents(world: World) -> None:
    """b has the reservation that a made but could not replicate to c; c leads and is already at work."""
    world.lead("a", 1, "bc")
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1")
    await until(lambda: world["c"].ledger.open_message("local:t:k1"))
    world.network.cut("a", "c")
    world["a"].agent.gate.set()
    await until(lambda: world["b"].ledger.outbox())
    await world["a"].kill()
    world["c"].agent.gate.clear()
    world.network.cut("b", "c")
    world["c"].authority.become_holder(2)
    await until(lambda: world["c"].agent.requests)
    world["b"].authority.observe("c", 2)
    world.network.join("b", "c")
    await until(lambda: world["c"].ledger.outbox())
    world["c"].agent.gate.set()
    await until(lambda: world.receiver.taken)
    assert world.receiver.texts == ["a: k1"]


async def test_an_answer_that_can_never_have_been_sent_troubles_nobody(world: World) -> None:
    """Only b has what a reserved: c was in the electorate and lacks it, so a did not send it."""
    world.lead("a", 1, "bc")
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1")
    await until(lambda: world["c"].ledger.open_message("local:t:k1"))
    world.network.cut("a", "c")
    world["a"].agent.gate.set()
    await until(lambda: world["b"].ledger.outbox())
    await world["a"].kill()
    assert world.receiver.attempts == []
    world["c"].channel.before.clear()
    world.network.cut("b", "c")
    world["c"].authority.become_holder(2)
    await until(lambda: world["c"].channel.under_way)
    world["b"].authority.observe("c", 2)
    world.network.join("b", "c")
    await until(lambda: world["c"].transport.caught_up("b"))
    assert world["b"].ledger.open_message("local:t:k1").state == "reserved"  # type: ignore[union-attr]
    await world["c"].kill()
    world["b"].authority.become_holder(3)
    await until(lambda: world.receiver.texts == ["c: k1"])


async def test_two_answers_reserved_on_both_sides_wait_for_a_person(world: World) -> None:
    world.lead("a", 1, "b")
    world["a"].agent.gate.clear()
    await submit(world, "a", "k1")
    await until(lambda: world["c"].ledger.open_message("local:t:k1"))
    world.network.isolate("c")
    world["a"].agent.gate.set()
    world["a"].channel.before.clear()
    await until(lambda: world["b"].ledger.outbox())
    await world["a"].kill()
    world["c"].channel.before.clear()
    world["c"].incomplete = frozenset("ab")
    world["c"].authority.become_holder(1_000_000)  # by force
    await until(lambda: world["c"].ledger.outbox())
    await world["c"].kill()
    await world["c"].boot()
    world["b"].authority.observe("c", 1_000_000)
    world["c"].authority.become_holder(1_000_000)
    world["c"].channel.before.clear()
    world.network.join("b", "c")
    await until(lambda: world["c"].delivery.outbox_items()[0].state == "undecided")
    world["c"].channel.before.set()
    [item] = world["c"].delivery.outbox_items()
    assert "different answers" in item.reason


async def test_a_receiver_that_knows_a_higher_epoch_is_not_asked_again_in_this_one(world: World) -> None:
    world.lead("a", 1, "b")
    world["a"].channel.outcomes = [Fenced("epoch 2 is known")]
    await submit(world, "a", "k1")
    await until(lambda: world["a"].outbox.trouble)
    await submit(world, "a", "k2")
    await until(lambda: world.receiver.texts == ["a: k2"])
    await world["a"].delivery.pause()
    await world["a"].delivery.resume()
    await submit(world, "a", "k3")
    await until(lambda: world.receiver.texts == ["a: k2", "a: k3"])
    assert await world["a"].state("t", "k1") == "reserved"
    assert "epoch 2 is known" in world["a"].delivery.outbox_items()[0].reason
    await holder_dies(world, "a", "b", 2)
    await until(lambda: world.receiver.texts == ["a: k2", "a: k3", "a: k1"])


async def test_the_context_travels_and_says_who_answered_before(world: World) -> None:
    world.lead("a", 1, "b")
    await submit(world, "a", "k1")
    await until(lambda: world["b"].ledger.topics().get("t") and world["b"].ledger.topics()["t"].seq == 2)
    await holder_dies(world, "a", "b", 2)
    await submit(world, "b", "k2")
    await until(lambda: world["b"].agent.requests)
    request = world["b"].agent.requests[0]
    assert [(h.role, h.text) for h in request.history] == [("user", "k1"), ("agent", "a: k1")]
    assert (request.provenance.previous_machine, request.provenance.complete) == ("a", True)


async def test_the_context_is_called_incomplete_until_the_missing_machine_has_handed_up_what_it_had(
    world: World,
) -> None:
    world.network.isolate("a")
    world.lead("a", 1)
    await submit(world, "a", "k1")
    await until(lambda: world.receiver.texts == ["a: k1"])
    await until(lambda: not world["a"].ledger.log.state.open)
    world["b"].incomplete = frozenset("a")
    world.lead("b", 2)
    await submit(world, "b", "k2")
    await until(lambda: world["b"].agent.requests)
    [blind] = world["b"].agent.requests
    assert (blind.history, blind.provenance.complete) == ((), False)
    await world.connect("a")
    await until(lambda: not world["b"].ledger.incomplete)
    await submit(world, "b", "k3")
    await until(lambda: len(world["b"].agent.requests) == 2)
    seeing = world["b"].agent.requests[1]
    assert {"k1", "a: k1", "k2"} <= {line.text for line in seeing.history}
    assert seeing.provenance.complete


@pytest.mark.parametrize("seed", range(6))
async def test_random_crashes_and_takeovers_answer_every_acknowledged_message_once(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    async with running_world(tmp_path, "abc") as world:
        world.lead("a", 1, "bc")
        acknowledged: set[str] = set()
        holder, epoch = "a", 1
        for step in range(4):
            async with asyncio.TaskGroup() as group:
                for n in range(chance.randint(2, 8)):
                    key = f"{step}-{n}"
                    group.create_task(send_or_fail(world, holder, key, chance.choice("tu"), acknowledged))
                if chance.random() < 0.7:
                    await asyncio.sleep(chance.random() * 0.02)
                    if chance.random() < 0.5:
                        world.network.isolate(holder)
                    await world[holder].kill()
            survivors = [name for name in "abc" if world[name].alive]
            if not world[holder].alive:
                fallen, holder, epoch = holder, chance.choice(survivors), epoch + 1
                world.lead(holder, epoch, "".join(n for n in survivors if n != holder))
                await world[fallen].boot()
                world[fallen].authority.observe(holder, epoch)
                await world.connect(fallen)
                await until(lambda h=holder, f=fallen: world[h].transport.caught_up(f))  # type: ignore[misc]
                world[holder].authority.electorate(*(n for n in "abc" if n != holder))
        await until(lambda: not world[holder].ledger.log.state.open)
        answered = [reply.reply_to for reply in world.receiver.taken]
        assert len(answered) == len(set(answered))
        assert acknowledged <= set(answered)
        logs = [world[name].ledger.log for name in "abc"]
        await until(lambda: len({log.state.head for log in logs}) == 1)
        for topic in "tu":
            assert (
                await world["a"].lines(topic)
                == await world["b"].lines(topic)
                == await world["c"].lines(topic)
            )


async def send_or_fail(world: World, name: str, key: str, topic: str, acknowledged: set[str]) -> None:
    try:
        async with asyncio.timeout(3):
            await world[name].delivery.submit(topic, key, key)
    except (InstarError, TimeoutError):
        return
    acknowledged.add(key)
