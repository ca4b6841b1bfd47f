"""Handing over: one holder at every instant, and any doubt leaves the outgoing machine awake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from instar_node.api.holder_api import handoff_result
from instar_node.contracts import PeerInfo
from instar_node.errors import InstarError
from instar_node.handoff.steps import PLANS
from instar_node.handoff.wire_transport import HandoffAck, HandoffOffer
from tests.unit.fakes_mesh import eventually
from tests.unit.handoff_world import QUICK, Machine, World

BEFORE_THE_END = ["prepare", "tail_synced", "ingress_fenced", "drained"]
Harm = Callable[[World], Any]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.stop()


def soon(act: Callable[[str], None], what: str) -> None:
    asyncio.get_running_loop().call_later(0.02, act, what)


async def refused(world: World, to: str = "mini", **options: Any) -> InstarError:
    with pytest.raises(InstarError) as caught:
        await world.office.sentinel.hand_off(to, **options)
    return caught.value


def stays_awake(world: World) -> None:
    """The outgoing machine goes on as if nothing had been."""
    assert world.acting() == ["m-office"]
    assert not world.office.ingress.paused
    assert not world.office.board.running


async def test_a_handoff_takes_every_step_and_both_machines_show_it(world: World) -> None:
    outcome = await world.office.sentinel.hand_off("MINI")
    assert (outcome.outcome, outcome.holder, outcome.holder_nickname, outcome.epoch) == (
        "awake",
        "m-mini",
        "mini",
        8,
    )
    assert tuple(step.step for step in outcome.steps) == PLANS["handoff"]
    assert [step.at_ms for step in outcome.steps] == sorted(step.at_ms for step in outcome.steps)
    assert (outcome.kind, outcome.source, outcome.target) == ("handoff", "m-office", "m-mini")
    assert world.acting() == ["m-mini"]
    assert world.office.ingress.calls == ["pause", "drain", "resume"]
    await eventually(lambda: world.mini.board.view().outcome == "awake")
    assert tuple(world.mini.steps()) == PLANS["handoff"]
    assert world.mini.board.view().source == "m-office"
    assert [ended.outcome for ended in world.office.ended] == ["awake"]


async def test_an_outcome_is_what_the_api_says(world: World) -> None:
    outcome = await world.office.sentinel.hand_off("mini")
    result = handoff_result(outcome)
    assert result.__struct_fields__ == outcome.__struct_fields__
    assert (result.outcome, result.holder, result.epoch) == (outcome.outcome, outcome.holder, outcome.epoch)
    assert [(step.step, step.at_ms) for step in result.steps] == [
        (step.step, round(step.at_ms)) for step in outcome.steps
    ]
    assert result.took_ms == round(outcome.took_ms)


async def test_each_step_is_an_event_of_one_line(world: World) -> None:
    await world.office.sentinel.hand_off("mini")
    told = [event for event in world.office.told if event.kind == "handoff"]
    assert [event.text for event in told[:2]] == ["office → mini: prepare", "office → mini: tail_synced"]
    assert [event.data["step"] for event in told if "step" in event.data] == list(PLANS["handoff"])
    assert told[-1].text.startswith("office → mini: awake in epoch 8 after")


async def test_messages_are_taken_in_until_the_standby_has_confirmed_what_it_holds(world: World) -> None:
    world.office.ledger.append(b"three")
    handing = asyncio.create_task(world.office.sentinel.hand_off("mini"))
    await asyncio.sleep(0.02)
    assert not world.office.ingress.paused
    world.mini.ledger.append(b"three")
    assert (await handing).outcome == "awake"


# -- refused before it begins -----------------------------------------------------------------------------


async def test_a_standby_hands_nothing_off_and_says_who_can(world: World) -> None:
    with pytest.raises(InstarError) as caught:
        await world.mini.sentinel.hand_off("nas")
    assert caught.value.code == "not-awake"
    assert "office" in caught.value.hint


async def test_nobody_hands_off_to_a_machine_that_is_not_there(world: World) -> None:
    error = await refused(world, "laptop")
    assert (error.code, error.status) == ("unknown-machine", 404)
    assert error.extra["known"] == ["office", "mini", "nas"]
    world.net.cut("m-office", "m-mini")
    assert (await refused(world)).code == "peer-unreachable"
    stays_awake(world)


async def test_nobody_hands_off_to_an_incompatible_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = PeerInfo("m-mini", True, None, None, None, "0", (0, 0), "one", False)
    monkeypatch.setattr(world.office.mesh, "info", lambda peer: old)
    assert (await refused(world)).code == "incompatible"


async def test_handing_off_to_oneself_is_done_already(world: World) -> None:
    assert (await world.office.sentinel.hand_off("office")).outcome == "already-awake"


async def test_a_second_handoff_waits_for_nobody_and_says_what_is_under_way(world: World) -> None:
    world.office.lease.hang.add("bring_in")
    first = asyncio.create_task(world.office.sentinel.hand_off("mini"))
    await eventually(lambda: world.office.board.running)
    error = await refused(world, "nas")
    assert error.code == "handoff-running"
    assert "office → mini" in error.message
    await world.office.sentinel.stop()
    assert (await first).outcome == "aborted"


async def test_the_floor_binds_automatic_handoffs_and_never_a_person(world: World) -> None:
    world.office.lease.set("m-office", 8)
    world.epoch = 8
    for machine in (world.mini, world.nas):
        machine.lease.set("m-office", 8, valid=False)
    error = await refused(world, automatic=True)
    assert (error.code, error.status) == ("too-soon", 429)
    assert 9_000 < error.extra["retry_in_ms"] <= 10_000
    assert (await world.office.sentinel.hand_off("mini")).outcome == "awake"


# -- doubts ------------------------------------------------------------------------------------------------

DOUBTS: dict[str, Harm] = {
    "the standby is not in sync": lambda w: w.office.lease.in_sync.clear(),
    "joining the electorate hangs": lambda w: w.office.lease.hang.add("bring_in"),
    "the standby's log is behind": lambda w: w.office.ledger.append(b"three"),
    "the standby's log has other entries": lambda w: w.mini.ledger.entries.__setitem__(0, b"forged"),
    "the standby's conversation differs": lambda w: w.mini.tail.lines.__setitem__(0, "hallo"),
    "the standby lacks the state": lambda w: setattr(w.mini.state, "lacks", "abc"),
    "the standby believes in another holder": lambda w: w.mini.lease.set("m-nas", 7, valid=False),
    "the standby knows a newer epoch": lambda w: w.mini.lease.set("m-nas", 8, valid=False),
    "pausing fails": lambda w: w.office.ingress.trouble.update(pause=OSError("no")),
    "draining fails": lambda w: w.office.ingress.trouble.update(drain=OSError("no")),
    "the lease is not given": lambda w: w.office.lease.trouble.update(
        pass_to=InstarError("not-in-sync", "the electorate is changing")
    ),
}


@pytest.mark.parametrize("harm", DOUBTS.values(), ids=DOUBTS.keys())
async def test_any_doubt_leaves_the_outgoing_machine_awake(world: World, harm: Harm) -> None:
    harm(world)
    outcome = await world.office.sentinel.hand_off("mini")
    assert outcome.outcome == "aborted"
    assert outcome.reason
    assert outcome.holder == "m-office"
    stays_awake(world)


async def test_what_happens_during_the_drain_must_reach_the_standby_too(world: World) -> None:
    """The second manifest: without it the last messages before the fence would be missing there."""
    world.office.at("ingress_fenced", lambda: world.office.ledger.append(b"last words"))
    outcome = await world.office.sentinel.hand_off("mini")
    assert (outcome.outcome, world.office.steps()[-1]) == ("aborted", "drained")
    stays_awake(world)


async def test_a_write_under_way_when_the_drain_ends_must_reach_the_standby_too(world: World) -> None:
    world.office.at("ingress_fenced", lambda: world.office.ledger.under_way.append(b"late"))
    outcome = await world.office.sentinel.hand_off("mini")
    assert (outcome.outcome, world.office.steps()[-1]) == ("aborted", "drained")


async def test_the_lease_is_not_given_up_towards_a_machine_that_has_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = world.office.wire.offer

    async def gone_after_the_second(*args: Any) -> None:
        await offer(*args)
        if args[3] == 2:
            world.net.cut("m-office", "m-mini")

    monkeypatch.setattr(world.office.wire, "offer", gone_after_the_second)
    assert (await world.office.sentinel.hand_off("mini")).outcome == "aborted"
    stays_awake(world)


@pytest.mark.parametrize("step", BEFORE_THE_END)
async def test_a_link_cut_at_any_step_before_the_end_aborts_on_both_sides(world: World, step: str) -> None:
    world.office.at(step, lambda: world.net.cut("m-office", "m-mini"))
    outcome = await world.office.sentinel.hand_off("mini")
    assert outcome.outcome == "aborted"
    stays_awake(world)
    await eventually(lambda: not world.mini.board.running)
    assert world.mini.board.view().outcome in ("aborted", "failed", "none")
    world.net.mend("m-office", "m-mini")
    assert (await world.office.sentinel.hand_off("mini")).outcome == "awake"


async def test_a_link_cut_after_the_lease_was_given_up_is_a_failure_and_nobody_acts(world: World) -> None:
    world.office.at("yielded", lambda: world.net.cut("m-office", "m-mini"))
    outcome = await world.office.sentinel.hand_off("mini")
    assert (outcome.outcome, outcome.reason) == ("failed", "the successor has not taken the lease yet")
    assert world.acting() == []
    assert not world.office.ingress.paused, "who waits must learn that this machine is not awake"
    await eventually(lambda: not world.mini.board.running)
    assert world.mini.board.view().outcome == "failed"


@pytest.mark.parametrize("step", BEFORE_THE_END)
async def test_a_standby_that_dies_at_any_step_costs_nothing(world: World, step: str) -> None:
    def die() -> None:
        world.net.isolate("m-mini")
        world.mini.mesh.requests.clear()

    world.office.at(step, die)
    assert (await world.office.sentinel.hand_off("mini")).outcome == "aborted"
    stays_awake(world)
    assert (await world.office.sentinel.hand_off("nas")).outcome == "awake"


@pytest.mark.parametrize("step", BEFORE_THE_END)
async def test_a_holder_that_dies_at_any_step_leaves_a_standby_that_may_take_over(
    world: World, step: str
) -> None:
    def die() -> None:
        world.office.lease.valid = False
        world.net.isolate("m-office")

    world.office.at(step, die)
    world.mini.lease.may_take.set()
    await world.office.sentinel.hand_off("mini")
    assert world.acting() == []
    await eventually(lambda: not world.mini.board.running)
    assert (await world.mini.wakeup.wakeup()).outcome == "awake"
    assert world.acting() == ["m-mini"]


@pytest.mark.parametrize("step", BEFORE_THE_END)
async def test_a_node_that_stops_before_the_end_keeps_the_lease_and_answers_who_waits(
    world: World, step: str
) -> None:
    stopping: list[asyncio.Task[None]] = []
    world.office.at(step, lambda: stopping.append(asyncio.create_task(world.office.sentinel.stop())))
    outcome = await world.office.sentinel.hand_off("mini")
    assert outcome.outcome == "aborted"
    assert world.acting() == ["m-office"]


async def test_the_lease_lost_during_a_handoff_is_a_failure_not_an_abort(world: World) -> None:
    world.office.at("ingress_fenced", lambda: world.office.lease.set("m-office", 7, valid=False))
    outcome = await world.office.sentinel.hand_off("mini")
    assert (outcome.outcome, outcome.reason) == ("failed", "this machine lost the lease meanwhile")
    assert "pass_to" not in world.office.lease.calls


async def test_a_standby_that_declines_leaves_us_awake_in_a_later_epoch(world: World) -> None:
    async def declined(machine: str, within: float) -> int:
        world.office.lease.set("m-office", 7, valid=False)
        world.office.lease.set("m-office", 9)
        raise InstarError("declined", "the other machine declined; this one is awake again")

    world.office.lease.pass_to = declined  # type: ignore[method-assign]
    outcome = await world.office.sentinel.hand_off("mini")
    assert (outcome.outcome, outcome.epoch) == ("aborted", 9)
    stays_awake(world)


async def test_a_caller_who_goes_away_does_not_stop_the_handoff(world: World) -> None:
    asking = asyncio.create_task(world.office.sentinel.hand_off("mini"))
    await asyncio.sleep(0)
    assert world.office.board.running
    asking.cancel()
    await eventually(lambda: world.acting() == ["m-mini"])


async def test_a_pass_that_never_returns_is_not_waited_for_for_ever(world: World) -> None:
    world.office.lease.hang.add("token")
    outcome = await world.office.sentinel.hand_off("mini")
    assert outcome.outcome == "failed"
    assert world.office.steps()[-1] == "yielded"
    assert world.office.lease.cut_short == [], "what the lease has begun it brings to its end"


async def test_a_target_seen_awake_is_success_whatever_else_went_wrong(world: World) -> None:
    async def late(machine: str, within: float) -> int:
        world.award(machine)
        raise InstarError("handoff-failed", "the successor has not taken the lease yet")

    world.office.lease.pass_to = late  # type: ignore[method-assign]
    assert (await world.office.sentinel.hand_off("mini")).outcome == "awake"


async def test_only_the_target_s_own_epoch_counts_as_success(world: World) -> None:
    async def another(machine: str, within: float) -> int:
        world.award("m-nas")
        return world.epoch

    world.office.lease.pass_to = another  # type: ignore[method-assign]
    assert (await world.office.sentinel.hand_off("mini")).outcome == "failed"
    assert world.acting() == ["m-nas"]


async def test_an_acknowledgement_of_something_else_is_none(world: World) -> None:
    async def wrong(peer: str, offer: HandoffOffer) -> HandoffAck:
        return HandoffAck(offer.session, offer.round, b"something else")

    world.mini.mesh.on_request(HandoffOffer, wrong)
    outcome = await world.office.sentinel.hand_off("mini")
    assert (outcome.outcome, world.office.steps()) == ("aborted", ["prepare"])


# -- draining ----------------------------------------------------------------------------------------------


async def test_agents_at_work_may_finish(world: World) -> None:
    world.office.ingress.working.add("42")
    world.office.at(
        "ingress_fenced",
        lambda: soon(world.office.ingress.done, "42"),
    )
    outcome = await world.office.sentinel.hand_off("mini")
    assert outcome.outcome == "awake"
    assert world.office.ingress.cancelled == set()
    assert outcome.steps[3].note == ""


async def test_an_agent_that_takes_too_long_runs_again_on_the_other_machine(world: World) -> None:
    world.office.ingress.working.add("42")
    outcome = await world.office.sentinel.hand_off("mini")
    assert outcome.outcome == "awake"
    assert world.office.ingress.cancelled == {"42"}
    assert outcome.steps[3].note == "what was not done runs on mini"


async def test_messages_that_wait_for_an_offline_machine_do_not_delay(world: World) -> None:
    world.office.ingress.stuck.add("pinned")
    world.office.ingress.working.add("42")
    world.office.at(
        "ingress_fenced",
        lambda: soon(world.office.ingress.done, "42"),
    )
    unhurried = msgspec.structs.replace(QUICK, drain_s=60.0)
    async with asyncio.timeout(5):
        outcome = await world.office.sentinel.hand_off("mini", times=unhurried)
    assert outcome.outcome == "awake"
    assert world.office.ingress.cancelled == {"pinned"}, "the agent at work came to its end"


# -- the receiver --------------------------------------------------------------------------------------------


async def offered(world: World, by: Machine, **changes: Any) -> str:
    """Send mini an offer by hand; the code of its refusal, or ``acked``."""
    world.mini.mesh.hang.add("handoff.await")
    manifest = await world.office.receiver._copies.manifest()
    offer = HandoffOffer("session-1", 7, 1, manifest, 200)
    answer = world.mini.mesh.requests["handoff.offer"][1]
    try:
        await answer(by.name, msgspec.structs.replace(offer, **changes))
    except InstarError as error:
        return error.code
    return "acked"


async def test_only_the_holder_of_the_highest_epoch_is_believed(world: World) -> None:
    assert await offered(world, world.nas) == "not-holder"
    assert await offered(world, world.office, epoch=6) == "stale-epoch"
    assert await offered(world, world.office, epoch=8) == "not-holder"
    assert world.mini.receiver.refused == 3
    assert world.mini.board.view().outcome == "none"
    assert await offered(world, world.office) == "acked"


async def test_the_second_round_counts_only_after_the_first_of_the_same_handoff(world: World) -> None:
    assert await offered(world, world.office, round=2) == "unknown-session"
    world.mini.tail.lines[0] = "differs"
    assert await offered(world, world.office) == "copy-differs"
    world.mini.tail.lines[0] = "hello"
    assert await offered(world, world.office, round=2) == "unknown-session"
    assert await offered(world, world.office) == "acked"
    assert await offered(world, world.office, round=2, session="session-2") == "unknown-session"
    assert await offered(world, world.office, round=2) == "acked"


async def test_a_machine_that_learns_of_a_newer_holder_while_it_compares_acknowledges_nothing(
    world: World,
) -> None:
    world.office.ledger.append(b"three")
    offering = asyncio.create_task(offered(world, world.office))
    await asyncio.sleep(0.02)
    world.mini.lease.set("m-nas", 8, valid=False)
    world.mini.ledger.append(b"three")
    assert await offering == "stale-epoch"


async def test_a_holder_that_restarted_begins_anew(world: World) -> None:
    assert await offered(world, world.office) == "acked"
    assert (await world.office.sentinel.hand_off("mini")).outcome == "awake"
    assert [outcome.outcome for outcome in world.mini.ended] == ["aborted", "awake"]
    assert world.mini.ended[0].reason == "office began anew"


async def test_a_lease_on_its_way_when_the_link_broke_is_waited_for(world: World) -> None:
    def cut() -> None:
        world.net.cut("m-office", "m-mini")
        soon(world.award, "m-mini")

    world.office.at("yielded", cut)
    handing = asyncio.create_task(world.office.sentinel.hand_off("mini"))
    await eventually(lambda: world.mini.board.view().outcome not in ("none", "running"))
    assert world.mini.board.view().outcome == "awake"
    await handing


async def test_a_machine_that_is_taking_the_lease_by_the_rules_takes_no_offer_beside(world: World) -> None:
    world.net.cut("m-office", "m-mini")
    waking = asyncio.create_task(world.mini.wakeup.wakeup())
    await eventually(lambda: world.mini.board.view().kind == "takeover")
    assert await offered(world, world.office) == "handoff-running"
    assert world.mini.board.view().kind == "takeover"
    waking.cancel()


async def test_a_manifest_nobody_can_read_is_refused(world: World) -> None:
    manifest = await world.office.receiver._copies.manifest()
    garbled = msgspec.structs.replace(manifest, tail=b"\xc1")
    assert await offered(world, world.office, manifest=garbled) == "bad-manifest"
