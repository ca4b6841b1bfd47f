"""Waking a machine up: by asking, by the rules, by force; and what a program that ends does with the role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from instar_node.errors import InstarError
from instar_node.handoff.steps import PLANS
from tests.unit.fakes_mesh import FakeMembers, eventually
from tests.unit.handoff_world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.stop()


async def refused(world: World, force: bool = False, vouch: tuple[str, ...] = ()) -> InstarError:
    with pytest.raises(InstarError) as caught:
        await world.mini.wakeup.wakeup(force, vouch)
    return caught.value


# -- asking the holder --------------------------------------------------------------------------------


async def test_a_standby_that_asks_is_handed_the_lease_and_sees_every_step(world: World) -> None:
    outcome = await world.mini.wakeup.wakeup()
    assert (outcome.outcome, outcome.kind, outcome.holder_nickname, outcome.epoch) == (
        "awake",
        "handoff",
        "mini",
        8,
    )
    assert tuple(step.step for step in outcome.steps) == PLANS["handoff"]
    assert (outcome.source, outcome.target) == ("m-office", "m-mini")
    await eventually(lambda: world.office.board.view().outcome == "awake")
    assert world.office.board.session == world.mini.board.session


async def test_the_awake_machine_is_awake_already(world: World) -> None:
    assert (await world.office.wakeup.wakeup()).outcome == "already-awake"
    assert world.office.board.view().outcome == "none"


async def test_a_holder_that_aborts_is_said_to_stay_awake_with_its_reason(world: World) -> None:
    world.office.lease.in_sync.clear()
    outcome = await world.mini.wakeup.wakeup()
    assert (outcome.outcome, outcome.reason) == ("aborted", "m-mini has not caught up yet")
    assert world.acting() == ["m-office"]


async def test_of_two_machines_that_wake_up_at_once_one_wins_and_the_other_is_told(world: World) -> None:
    both = await asyncio.gather(world.mini.wakeup.wakeup(), world.nas.wakeup.wakeup(), return_exceptions=True)
    won = [answer for answer in both if not isinstance(answer, BaseException)]
    told = [answer for answer in both if isinstance(answer, InstarError)]
    assert [outcome.outcome for outcome in won] == ["awake"]
    assert [error.code for error in told] == ["handoff-running"]
    assert f"office → {won[0].holder_nickname}" in told[0].message
    assert world.acting() == [won[0].holder]


async def test_two_wakeups_of_one_machine_get_one_answer(world: World) -> None:
    first, second = await asyncio.gather(world.mini.wakeup.wakeup(), world.mini.wakeup.wakeup())
    assert first == second
    assert first.outcome == "awake"
    assert world.epoch == 8


async def test_a_wakeup_joins_the_handoff_to_it_that_is_under_way_already(world: World) -> None:
    world.office.ledger.append(b"three")
    handing = asyncio.create_task(world.office.sentinel.hand_off("mini"))
    await asyncio.sleep(0)
    world.mini.board.require_free()  # mini has not heard of it yet
    waking = asyncio.create_task(world.mini.wakeup.wakeup())
    await asyncio.sleep(0.02)
    world.mini.ledger.append(b"three")
    assert (await handing).outcome == (await waking).outcome == "awake"
    assert world.epoch == 8


async def test_who_asks_a_machine_that_has_just_handed_over_learns_who_is_awake(world: World) -> None:
    world.net.cut("m-mini", "m-nas")
    asking = world.mini.mesh.request

    async def late(*args: object, **options: object) -> object:
        await world.office.sentinel.hand_off("nas")
        world.mini.lease.set("m-nas", 8, valid=False)
        return await asking(*args, **options)  # type: ignore[arg-type]

    world.mini.mesh.request = late  # type: ignore[method-assign, assignment]
    error = await refused(world)
    assert (error.code, error.extra["holder"]) == ("holder-changed", "m-nas")
    assert "nas has just become awake, in epoch 8" in error.message


async def test_a_removed_machine_and_a_witness_never_wake_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = world.members.get("m-mini")
    assert member is not None
    for change, code, status in (({"removed": True}, "removed", 403), ({"witness": True}, "witness", 409)):
        changed = msgspec.structs.replace(member, **change)
        monkeypatch.setattr(FakeMembers, "get", lambda self, machine, changed=changed: changed)
        error = await refused(world)
        assert (error.code, error.status) == (code, status)
    assert world.mini.lease.calls == []


async def test_a_link_that_breaks_while_waiting_is_an_abort_as_long_as_nothing_was_confirmed(
    world: World,
) -> None:
    world.office.lease.hang.add("bring_in")
    waking = asyncio.create_task(world.mini.wakeup.wakeup())
    await eventually(lambda: world.office.board.running)
    world.net.cut("m-office", "m-mini")
    world.office.lease.hang.clear()
    outcome = await waking
    assert outcome.outcome == "aborted"
    assert world.acting() == ["m-office"]


# -- by the rules -------------------------------------------------------------------------------------


async def test_a_lost_holder_s_lease_is_taken_by_the_rules_and_the_wait_is_told(world: World) -> None:
    world.office.lease.valid = False
    world.net.isolate("m-office")
    world.mini.lease.contend_in_us = 6_060_000
    waking = asyncio.create_task(world.mini.wakeup.wakeup())
    await eventually(lambda: "take_over" in world.mini.lease.calls)
    view = world.mini.board.view()
    assert (view.outcome, view.kind) == ("running", "takeover")
    assert view.steps[-1].note == "the lease may be taken in 6.1 s"
    world.mini.lease.may_take.set()
    outcome = await waking
    assert (outcome.outcome, outcome.epoch, outcome.source) == ("awake", 8, "m-office")
    assert [step.step for step in outcome.steps] == ["prepare", "waiting", "committed"]


async def test_the_time_left_is_counted_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instar_node.handoff.wakeup.COUNT_S", 0.01)
    world.net.isolate("m-office")
    world.mini.lease.contend_in_us = 60_000
    waking = asyncio.create_task(world.mini.wakeup.wakeup())

    def left() -> list[int]:
        return [event.data["remaining_ms"] for event in world.mini.told if "remaining_ms" in event.data]

    await eventually(lambda: len(left()) >= 3)
    assert left() == sorted(left(), reverse=True)
    world.office.lease.valid = False
    world.mini.lease.may_take.set()
    assert (await waking).outcome == "awake"


async def test_a_caller_who_goes_away_does_not_stop_the_wakeup(world: World) -> None:
    waking = asyncio.create_task(world.mini.wakeup.wakeup())
    await asyncio.sleep(0)
    waking.cancel()
    await eventually(lambda: world.acting() == ["m-mini"])


async def test_a_holder_that_hears_but_never_answers_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.handoff.wire_transport.ANSWER_S", 0.02)
    world.office.lease.valid = False
    world.mini.mesh.hang.add("handoff.ask")
    world.mini.lease.may_take.set()
    outcome = await world.mini.wakeup.wakeup()
    assert (outcome.outcome, outcome.kind) == ("awake", "takeover")


async def test_a_holder_that_comes_back_meanwhile_is_asked_after_all(world: World) -> None:
    world.net.cut("m-office", "m-mini")
    waking = asyncio.create_task(world.mini.wakeup.wakeup())
    await eventually(lambda: "take_over" in world.mini.lease.calls)
    world.net.mend("m-office", "m-mini")
    outcome = await waking
    assert (outcome.outcome, outcome.kind) == ("awake", "handoff")


async def test_who_waits_while_another_machine_takes_the_lease_is_told_at_once(world: World) -> None:
    world.office.lease.valid = False
    world.net.isolate("m-office")
    waking = asyncio.create_task(world.mini.wakeup.wakeup())
    await eventually(lambda: "take_over" in world.mini.lease.calls)
    world.award("m-nas")
    with pytest.raises(InstarError, match="nas has just become awake") as caught:
        await waking
    assert caught.value.code == "holder-changed"
    assert world.mini.board.view().outcome == "aborted"


async def test_a_lease_that_cannot_be_taken_says_why_and_the_way_out(world: World) -> None:
    world.net.isolate("m-office")
    error = InstarError("cannot-take-over", "only office can pass it on", "`instar wakeup --force`")
    world.mini.lease.trouble["take_over"] = error
    assert (await refused(world)).hint == "`instar wakeup --force`"
    assert (world.mini.board.view().outcome, world.mini.board.view().reason) == ("failed", error.message)


async def test_stopping_ends_the_wait(world: World) -> None:
    world.net.isolate("m-office")
    waking = asyncio.create_task(world.mini.wakeup.wakeup())
    await eventually(lambda: "take_over" in world.mini.lease.calls)
    await world.mini.wakeup.stop()
    assert not world.mini.board.running
    with pytest.raises(InstarError) as caught:
        await waking
    assert caught.value.code == "stopping"


# -- by force -----------------------------------------------------------------------------------------


async def test_force_asks_first_and_a_question_is_no_attempt(world: World) -> None:
    error = await refused(world, force=True)
    assert (error.code, error.extra["vouch"]) == ("needs-confirmation", ["b"])
    assert world.mini.board.view().outcome == "none"


async def test_force_with_everybody_vouched_for_makes_this_machine_awake(world: World) -> None:
    world.office.lease.valid = False
    world.net.isolate("m-office")
    outcome = await world.mini.wakeup.wakeup(True, ("m-office",))
    assert (outcome.outcome, outcome.kind, outcome.holder) == ("awake", "force", "m-mini")


async def test_force_that_fails_is_shown(world: World) -> None:
    world.mini.lease.trouble["force"] = InstarError("hub-unreachable", "the hub cannot be read")
    assert (await refused(world, True, ("m-office",))).code == "hub-unreachable"
    assert world.mini.board.view().reason == "the hub cannot be read"


# -- the end of the program ---------------------------------------------------------------------------


async def test_a_program_that_ends_hands_over_to_a_machine_in_sync(world: World) -> None:
    world.office.lease.in_sync = {"m-nas"}
    outcome = await world.office.shutdown().hand_off_for_shutdown()
    assert outcome is not None
    assert (outcome.outcome, outcome.holder) == ("awake", "m-nas")
    assert "release" not in world.office.lease.calls


async def test_one_standby_that_fails_leaves_time_for_the_next(world: World) -> None:
    world.mini.tail.lines[0] = "forged"
    outcome = await world.office.shutdown().hand_off_for_shutdown()
    assert outcome is not None
    assert (outcome.outcome, outcome.holder) == ("awake", "m-nas")


async def test_without_a_machine_in_sync_the_lease_is_released(world: World) -> None:
    world.net.isolate("m-office")
    assert await world.office.shutdown().hand_off_for_shutdown() is None
    assert world.office.lease.calls == ["release"]
    assert world.acting() == []


async def test_a_hub_that_is_away_does_not_hold_up_the_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.net.isolate("m-office")
    world.office.lease.trouble["release"] = InstarError("hub-unreachable", "no hub")
    await world.office.shutdown().hand_off_for_shutdown()
    assert "runs out by itself" in caplog.text


async def test_the_end_takes_no_longer_than_it_may(world: World) -> None:
    world.office.ingress.working.add("42")
    world.office.lease.hang.add("bring_in")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await world.office.shutdown().hand_off_for_shutdown(within=0.4)
    assert world.office.lease.calls[-1] == "release"
    assert loop.time() - began < 3.0


async def test_the_baton_goes_on_unless_it_is_asked_to_stay(world: World) -> None:
    assert await world.office.shutdown(embedded=True).hand_off_for_shutdown(keep_baton=True) is None
    assert (world.acting(), world.office.lease.calls) == (["m-office"], [])
    outcome = await world.office.shutdown(embedded=True).hand_off_for_shutdown()
    assert outcome is not None
    assert outcome.outcome == "awake"


async def test_a_baton_nobody_can_take_is_never_released(world: World) -> None:
    world.net.isolate("m-office")
    await world.office.shutdown(embedded=True).hand_off_for_shutdown()
    assert world.acting() == ["m-office"]


async def test_a_standby_that_ends_has_nothing_to_hand_over(world: World) -> None:
    assert await world.mini.shutdown().hand_off_for_shutdown() is None
    assert world.mini.lease.calls == []


async def test_a_handoff_under_way_may_end_before_the_program_does(world: World) -> None:
    handing = asyncio.create_task(world.office.sentinel.hand_off("mini"))
    await asyncio.sleep(0)
    outcome = await world.office.shutdown().hand_off_for_shutdown()
    assert outcome == await handing
    assert world.acting() == ["m-mini"]
    assert "release" not in world.office.lease.calls
