"""The fenced outbox: who may send, and what becomes of an answer nobody can vouch for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from instar_node.contracts import RunResult
from instar_node.delivery.contract import Fenced, Refused, Retry, Sent
from instar_node.delivery.outbox import Doubt, Refusal, after_doubt, decide
from instar_node.delivery.rows import MessageRow, Rank, Status
from instar_node.errors import InstarError
from tests.unit.delivery_world import Machine, World, running_world, until


@pytest.mark.parametrize(
    ("rank", "stamped", "acting", "verdict"),
    [
        (Rank.RESERVED, 3, 3, None),
        (Rank.UNDECIDED, 3, 3, None),
        (Rank.RESERVED, 3, None, Refusal.NO_LEASE),
        (Rank.RESERVED, 2, 3, Refusal.STALE_EPOCH),
        (Rank.RESERVED, 4, 3, Refusal.STALE_EPOCH),
        (Rank.COMMITTED, 3, 3, Refusal.ALREADY_REPLIED),
        (Rank.CURSOR_ADVANCED, 3, 3, Refusal.ALREADY_REPLIED),
        (Rank.REJECTED, 3, 3, Refusal.ALREADY_REPLIED),
    ],
)
def test_only_a_reserved_answer_of_the_acting_epoch_goes_out(
    rank: Rank, stamped: int, acting: int | None, verdict: Refusal | None
) -> None:
    assert decide(MessageRow("k", Status(rank)), stamped, acting) is verdict


@pytest.mark.parametrize(
    ("deduplicates", "was_sent", "waited", "policy", "verdict"),
    [
        (True, None, 0.0, "hold", "send"),
        (False, True, 0.0, "hold", "done"),
        (False, False, 4.9, "resend", "wait"),
        (False, False, 5.0, "hold", "send"),
        (False, None, 99.0, "hold", "hold"),
        (False, None, 0.0, "resend", "send"),
    ],
)
def test_what_may_have_been_sent_is_never_guessed(
    deduplicates: bool,
    was_sent: bool | None,
    waited: float,
    policy: Literal["hold", "resend"],
    verdict: str,
) -> None:
    assert after_doubt(Doubt(deduplicates, was_sent, waited, 5.0, policy)) == verdict


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, "a", deduplicates=False) as running:
        running.lead("a", 1)
        yield running


@pytest.fixture
def machine(world: World) -> Machine:
    return world["a"]


async def submit(machine: Machine, key: str, topic: str = "t") -> None:
    await machine.delivery.submit(topic, key, key)


async def crash_while_sending(world: World, key: str = "k1") -> Machine:
    """Leaves a reserved answer of which a channel without deduplication may have got something."""
    world["a"].channel.before.clear()
    await submit(world["a"], key)
    await until(lambda: world["a"].ledger.outbox())
    await world["a"].kill()
    await world["a"].boot()
    return world["a"]


async def test_an_undecided_answer_is_held_and_shown(world: World) -> None:
    machine = await crash_while_sending(world)
    world.lead("a", 2)
    await until(lambda: machine.delivery.outbox_items()[0].state == "undecided")
    [item] = machine.delivery.outbox_items()
    assert (item.topic, item.key, item.text, item.epoch) == ("t", "k1", "a: k1", 2)
    assert "nobody can say" in item.reason
    assert world.receiver.attempts == []
    await submit(machine, "k2")
    await until(lambda: world.receiver.texts == ["a: k2"])


async def test_a_person_sends_or_drops_what_is_undecided(world: World) -> None:
    for epoch, action, state, sent in (
        (2, "send", "committed", ["a: k2"]),
        (4, "drop", "rejected", ["a: k2"]),
    ):
        machine = await crash_while_sending(world, f"k{epoch}")
        world.lead("a", epoch)
        await until(lambda m=machine: [i.state for i in m.delivery.outbox_items()] == ["undecided"])  # type: ignore[misc]
        [item] = machine.delivery.outbox_items()
        await machine.delivery.resolve(item.id, action)  # type: ignore[arg-type]
        await until(lambda m=machine: not m.delivery.outbox_items())  # type: ignore[misc]
        assert await machine.state("t", f"k{epoch}") == state
        assert world.receiver.texts == sent
    with pytest.raises(InstarError) as gone:
        await machine.delivery.resolve(item.id, "send")
    assert gone.value.status == 404


async def test_the_policy_may_be_to_send_again(world: World) -> None:
    machine = await crash_while_sending(world)
    machine.channel.undecided = "resend"
    world.lead("a", 2)
    await until(lambda: world.receiver.texts == ["a: k1"])


async def test_a_channel_that_says_it_has_the_answer_is_believed_at_once(world: World) -> None:
    machine = await crash_while_sending(world)
    machine.channel.knows = True
    world.lead("a", 2)
    await until(lambda: not machine.ledger.log.state.open)
    assert await machine.state("t", "k1") == "committed"
    assert world.receiver.attempts == []


async def test_a_channel_that_denies_it_is_believed_when_nothing_can_be_on_its_way(world: World) -> None:
    machine = await crash_while_sending(world)
    machine.channel.knows = False
    begun = machine.world.clock.now()
    world.lead("a", 2)
    await until(lambda: world.receiver.texts == ["a: k1"])
    assert machine.world.clock.now() - begun >= 1_000_000


async def test_a_lost_answer_of_a_channel_without_deduplication_is_not_sent_again(machine: Machine) -> None:
    machine.channel.lost_answers = 1
    await submit(machine, "k1")
    await until(lambda: [i.state for i in machine.delivery.outbox_items()] == ["undecided"])
    assert len(machine.channel.receiver.attempts) == 1


async def test_what_surely_did_not_arrive_is_tried_again_and_shown_meanwhile(machine: Machine) -> None:
    machine.channel.outcomes = [Retry(0.5, "no connection", maybe_sent=False)] * 2
    await submit(machine, "k1")
    await until(lambda: machine.outbox.trouble)
    assert machine.delivery.outbox_items()[0].reason == "hook: no connection"
    await until(lambda: machine.channel.receiver.texts == ["a: k1"])
    await until(lambda: not machine.outbox.trouble)


@pytest.mark.parametrize(("acting", "why"), [(None, "no-lease"), (2, "stale-epoch")])
async def test_the_lease_is_looked_at_before_every_single_attempt(
    machine: Machine, acting: int | None, why: str
) -> None:
    machine.channel.outcomes = [Retry(0.5, "no connection", maybe_sent=False)]
    await submit(machine, "k1")
    await until(lambda: machine.outbox.trouble)
    machine.authority.change_silently(acting)
    await until(lambda: machine.outbox.refusals[why])
    assert machine.channel.receiver.attempts == []


async def test_an_answer_that_turned_out_to_be_given_is_not_sent(machine: Machine) -> None:
    machine.channel.outcomes = [Retry(10.0, "no connection", maybe_sent=False)]
    await submit(machine, "k1")
    await until(lambda: machine.outbox.trouble)
    row = machine.ledger.open_message("local:t:k1")
    assert row is not None
    assert row.reservation is not None
    await machine.ledger.commit(row.key, row.reservation.digest, 1)
    await until(lambda: machine.outbox.refusals["already-replied"])
    assert machine.channel.receiver.attempts == []


async def test_only_a_person_takes_up_what_is_undecided(machine: Machine) -> None:
    machine.channel.outcomes = [Refused("400")]
    await submit(machine, "k1")
    await until(lambda: [i.state for i in machine.delivery.outbox_items()] == ["undecided"])
    machine.channel.undecided = "resend"
    assert (await machine.outbox.resume("local:t:k1")).state == "undecided"
    assert machine.channel.receiver.attempts == []
    assert (await machine.outbox.resume("local:t:k1", by_person=True)).state == "committed"


async def test_a_refused_answer_is_surfaced_and_does_not_block_the_topic(machine: Machine) -> None:
    machine.channel.outcomes = [Refused("400: too long")]
    await submit(machine, "k1")
    await submit(machine, "k2")
    await until(lambda: machine.channel.receiver.texts == ["a: k2"])
    await until(lambda: len(machine.delivery.outbox_items()) == 1)
    [item] = machine.delivery.outbox_items()
    assert (item.state, item.reason) == ("undecided", "hook: 400: too long")


async def test_parts_that_are_out_are_not_sent_again_after_a_crash(world: World) -> None:
    machine = world["a"]
    machine.agent.results = [RunResult("ok", ("one", "two"))]
    machine.channel.outcomes = [Sent(), Retry(1_000, "no connection", maybe_sent=False)]
    await submit(machine, "k1")
    await until(lambda: machine.outbox.trouble)
    await machine.kill()
    await machine.boot()
    machine.channel.undecided = "resend"
    world.lead("a", 2)
    await until(lambda: not machine.ledger.log.state.open)
    assert world.receiver.texts == ["one", "two"]
    assert [line for _, line in await machine.lines("t")] == ["k1", "one", "two"]


async def test_dropping_an_answer_that_keeps_failing_frees_the_topic(machine: Machine) -> None:
    machine.channel.outcomes = [Retry(1_000, "no connection", maybe_sent=False)]
    await submit(machine, "k1")
    await submit(machine, "k2")
    await until(lambda: machine.outbox.trouble)
    await machine.delivery.resolve(machine.delivery.outbox_items()[0].id, "drop")
    await until(lambda: machine.channel.receiver.texts == ["a: k2"])
    assert await machine.state("t", "k1") == "rejected"
    assert machine.outbox.trouble == {}


async def test_a_reply_becomes_visible_only_once_committed(machine: Machine) -> None:
    machine.channel.before.clear()
    await submit(machine, "k1")
    await until(lambda: machine.ledger.outbox())
    assert await machine.lines("t") == [("user", "k1")]
    assert [line["kind"] for line in machine.sink.lines] == ["user"]
    machine.channel.before.set()
    await until(lambda: not machine.ledger.log.state.open)
    assert await machine.lines("t") == [("user", "k1"), ("agent", "a: k1")]
    [user, agent] = machine.sink.lines
    assert (agent["reply_to"], agent["seq"], user["seq"]) == ("k1", 2, 1)


async def test_what_a_receiver_fenced_off_waits_for_the_next_epoch_and_is_sent_in_it(
    machine: Machine,
) -> None:
    machine.channel.outcomes, machine.channel.undecided = [Fenced("epoch 8 was here")], "resend"
    await submit(machine, "k1")
    await until(lambda: machine.outbox.trouble)
    with pytest.raises(InstarError) as fenced:
        await machine.outbox.resume("local:t:k1")
    assert fenced.value.code == "fenced"
    assert machine.channel.receiver.attempts == []
    machine.world.lead("a", 2)
    await until(lambda: machine.channel.receiver.texts == ["a: k1"])


async def test_a_lapse_at_the_instant_of_resuming_is_not_taken_for_a_fenced_answer(world: World) -> None:
    machine = await crash_while_sending(world)
    machine.authority.observe("a", 2)
    with pytest.raises(InstarError) as lost:
        await machine.outbox.resume("local:t:k1")
    assert lost.value.code == "not-awake"
