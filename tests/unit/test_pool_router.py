"""A message runs once, on its topic's machine, whatever dies, moves or comes back meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NoReturn

import pytest

from instar_node.contracts import Lane, PeerError, Placement, RunResult
from instar_node.errors import InstarError
from instar_node.pool import remote_grant
from instar_node.pool.messages import RunAccepted, RunDone, RunDoneTaken, RunKeep, RunOrder
from instar_node.pool.transfer_report import TransferRequest
from tests.unit.fakes_mesh import eventually
from tests.unit.pool_support import DESK, LAPTOP, MINI, Machine, World, request


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(remote_grant, "KILL_GRACE_US", 100_000)
    async with World() as world:
        yield world


def keys(machine: Machine) -> list[str]:
    return [ran.key for ran in machine.runner.requests]


async def begun(machine: Machine, key: str = "k1") -> None:
    await eventually(lambda: key in machine.runner.running())


async def test_a_new_topic_runs_on_the_holder_and_is_placed_once(world: World) -> None:
    assert await world.desk.router.run(request()) == RunResult("ok", ("desk says hello",), machine="m-desk")
    assert await world.desk.router.run(request("k2")) == RunResult(
        "ok", ("desk says hello",), machine="m-desk"
    )
    assert world.log.writes == [Placement("42", DESK, 1, 1, "placed")]


async def test_whatever_runs_or_may_come_to_run_on_another_machine_may_act(world: World) -> None:
    router, agent = world.desk.router, world.desk.runner
    assert router.acts("42")  # it has no place yet
    await router.run(request())
    assert not router.acts("42")
    agent.harmless = False
    assert router.acts("42")
    agent.harmless = True
    world.pin("42", MINI)
    assert router.acts("42")


async def test_nothing_runs_under_a_placement_that_the_electorate_was_not_seen_to_take(world: World) -> None:
    assert (await world.desk.router.run(request())).machine == DESK
    answered = asyncio.Event()

    async def written_here_only(placement: Placement) -> None:
        world.log.rows[placement.topic] = placement
        await answered.wait()

    world.log.set_placement = written_here_only  # type: ignore[method-assign]
    move = asyncio.create_task(world.desk.transfers.transfer(TransferRequest("42", "mini")))
    await eventually(lambda: world.log.rows["42"].owner == MINI)
    move.cancel()  # whoever asked for it has waited long enough
    await asyncio.gather(move, return_exceptions=True)
    task = asyncio.create_task(world.desk.router.run(request("k2")))
    await asyncio.sleep(0.1)
    assert keys(world.mini) == []
    answered.set()
    assert (await task).machine == MINI
    known = world.log.rows["42"]
    assert (await world.desk.router.run(request("k3"))).machine == MINI
    assert world.log.rows["42"] is known  # and that was enough


async def test_a_topic_is_not_called_unpinned_before_the_electorate_knows(world: World) -> None:
    pins, place = world.desk.pins, world.log.set_placement
    await world.desk.router.run(request())
    await pins.pin("42", MINI, online=True)

    async def written_here_only(placement: Placement) -> None:
        await place(placement)
        raise InstarError("lease-lost", "not seen to arrive")

    world.log.set_placement = written_here_only  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(InstarError, match="not seen to arrive"):
            await pins.unpin("42", MINI)
    world.log.set_placement = place  # type: ignore[method-assign]
    seen = await pins.unpin("42", MINI)
    assert seen == world.log.writes[-1]
    assert await pins.unpin("42", MINI) is seen


async def test_a_placement_is_not_used_past_those_who_wait_to_change_it(world: World) -> None:
    pins = world.desk.pins
    await world.desk.router.run(request())
    assert pins.placed("42", DESK) is not None

    async def wait_to_change_it() -> None:
        async with pins.changing("42"):
            assert pins.placed("42", DESK) is None

    async with pins.changing("42"):
        waiting = asyncio.create_task(wait_to_change_it())
        await asyncio.sleep(0)
    assert pins.placed("42", DESK) is None  # its turn has come, but it has not run yet
    await waiting
    del waiting
    assert pins.placed("42", DESK) is not None


async def test_where_a_message_runs_is_decided_without_looking_at_the_other_topics(world: World) -> None:
    def all_of_them() -> NoReturn:
        raise AssertionError("ten thousand topics would be gone through for one message")

    world.log.placements = all_of_them  # type: ignore[method-assign]
    world.pin("17", MINI)
    assert (await world.desk.router.run(request("k1", topic="42"))).machine == DESK
    assert (await world.desk.router.run(request("k2", topic="17"))).machine == MINI
    await world.desk.transfers.transfer(TransferRequest("42", "laptop"))
    assert (await world.desk.router.run(request("k3", topic="42"))).machine == LAPTOP
    assert world.desk.transfers.describe("42").owner == LAPTOP


async def test_a_pinned_topic_runs_on_its_machine_which_is_named_in_the_provenance(world: World) -> None:
    world.pin("42", MINI)
    assert await world.desk.router.run(request()) == RunResult("ok", ("mini says hello",), machine="m-mini")
    assert keys(world.desk) == []
    assert world.mini.runner.requests[0].provenance.machine == MINI


async def test_a_long_run_elsewhere_is_kept_alive_past_its_grant(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    await asyncio.sleep(0.5)  # more than three grants
    assert list(world.desk.router.running("42")) == ["k1"]
    world.mini.runner.finish("k1", RunResult("ok", ("done",)))
    assert await task == RunResult("ok", ("done",), machine="m-mini")
    assert keys(world.mini) == ["k1"]


async def test_a_failed_run_elsewhere_fails_here_and_the_next_attempt_runs_anew(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    world.mini.runner.finish("k1", RunResult("failed", error="boom"))
    assert await task == RunResult("failed", error="boom")
    world.mini.runner.auto = True
    assert (await world.desk.router.run(request(n=2))).outcome == "ok"
    assert keys(world.mini) == ["k1", "k1"]


async def test_a_repeated_order_is_answered_with_the_run_under_way(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    order = RunOrder(request(), (1, 1), 10_000_000, world.mini.clock.now())
    first = await world.desk.mesh.request(MINI, order, RunAccepted, within=1)
    again = await world.desk.mesh.request(MINI, order, RunAccepted, within=1)
    assert (first.state, again.state) == ("started", "running")
    await begun(world.mini)
    assert keys(world.mini) == ["k1"]


async def test_a_repeated_order_after_the_end_is_answered_with_the_result(world: World) -> None:
    world.pin("42", MINI)
    assert (await world.desk.router.run(request())).outcome == "ok"
    assert await world.desk.router.run(request(n=2)) == RunResult(
        "ok", ("mini says hello",), machine="m-mini"
    )
    assert keys(world.mini) == ["k1"]


async def test_the_machine_of_a_placed_topic_dies_and_another_runs_it_after_the_bound(world: World) -> None:
    world.log.rows["42"] = Placement("42", MINI, 1, 1, "placed")
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    cut_at = world.desk.clock.now()
    world.net.isolate(MINI)
    assert await task == RunResult("ok", ("desk says hello",), machine="m-desk")
    assert world.desk.clock.now() - cut_at >= 150_000, "not before mini has surely stopped"
    assert not list(world.mini.runner.running()), "its grant was not renewed"
    assert world.log.rows["42"] == Placement("42", DESK, 1, 2, "placed")
    assert any("runs anew" in event.text for event in world.desk.told)


async def test_a_lapsed_grant_kills_the_run_and_says_so(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    world.net.isolate(MINI)
    await eventually(lambda: not list(world.mini.runner.running()))
    assert any("grant was not renewed" in event.text for event in world.mini.told)
    world.desk.router.cancel("k1")
    assert await task == RunResult("cancelled")


async def test_a_short_cut_does_not_disturb_a_run(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    world.net.cut(DESK, MINI)
    world.net.mend(DESK, MINI)
    await asyncio.sleep(0.3)
    world.mini.runner.finish("k1", RunResult("ok", ("done",)))
    assert await task == RunResult("ok", ("done",), machine="m-mini")
    assert keys(world.mini) == ["k1"]


async def test_a_result_that_could_not_be_brought_is_brought_when_the_link_is_back(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    world.net.cut(DESK, MINI)
    world.mini.runner.finish("k1", RunResult("ok", ("done",)))
    await asyncio.sleep(0.02)
    world.net.mend(DESK, MINI)
    assert await task == RunResult("ok", ("done",), machine="m-mini")
    assert keys(world.mini) == ["k1"]


async def test_a_machine_that_restarted_is_told_again(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    hosted = world.mini.host._hosted.pop("k1")  # its memory is gone with the process, and so is the agent
    assert hosted.task is not None
    hosted.task.cancel()
    world.mini.runner.auto = True
    assert await task == RunResult("ok", ("mini says hello",), machine="m-mini")
    assert keys(world.mini) == ["k1", "k1"]


async def test_a_run_that_is_still_dying_is_waited_for_before_it_begins_anew(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto, world.mini.runner.stubborn = False, True
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    world.net.isolate(MINI)
    await eventually(lambda: any("not renewed" in event.text for event in world.mini.told))
    world.mini.runner.auto = True
    world.net.rejoin(MINI)
    await eventually(lambda: world.net.log.count((DESK, MINI, "pool.run")) == 2)
    await asyncio.sleep(0.02)
    assert keys(world.mini) == ["k1"]
    world.mini.runner.finish("k1", RunResult("cancelled"))
    assert await task == RunResult("ok", ("mini says hello",), machine="m-mini")
    assert keys(world.mini) == ["k1", "k1"]


async def test_a_result_that_was_refused_for_good_is_not_brought_again(world: World) -> None:
    world.desk.runner.auto = False
    world.pin("42", LAPTOP)
    world.laptop.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.laptop)
    order = RunOrder(request(), (1, 0), 5_000_000, world.mini.clock.now())
    await world.desk.mesh.request(MINI, order, RunAccepted, within=1)
    await asyncio.sleep(0.6)
    assert world.net.log.count((MINI, DESK, "pool.done")) == 1
    world.laptop.runner.finish("k1", RunResult("ok", ("right",)))
    assert await task == RunResult("ok", ("right",), machine="m-laptop")


async def test_a_pin_to_a_machine_that_is_away_makes_the_message_wait(world: World) -> None:
    world.net.isolate(LAPTOP)
    world.pin("17", LAPTOP)
    task = asyncio.create_task(world.desk.router.run(request(topic="17")))
    await eventually(lambda: world.desk.router.waiting("17") == 1)
    assert list(world.desk.router.running("17")) == []
    assert not task.done()
    world.net.rejoin(LAPTOP)
    assert await task == RunResult("ok", ("laptop says hello",), machine="m-laptop")


async def test_a_message_that_waits_for_its_machine_can_be_cancelled(world: World) -> None:
    world.net.isolate(LAPTOP)
    world.pin("17", LAPTOP)
    task = asyncio.create_task(world.desk.router.run(request(topic="17")))
    await eventually(lambda: world.desk.router.waiting("17") == 1)
    assert world.desk.router.cancel("k1")
    assert await task == RunResult("cancelled")
    assert not world.desk.router.cancel("k1")


@pytest.mark.parametrize("where", [DESK, MINI])
async def test_cancelling_kills_the_run_wherever_it_is(world: World, where: str) -> None:
    world.pin("42", where)
    machine = world.desk if where == DESK else world.mini
    machine.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(machine)
    assert world.desk.router.cancel("k1")
    assert await task == RunResult("cancelled")
    assert not list(machine.runner.running())


async def test_losing_the_lease_kills_the_run_here(world: World) -> None:
    world.desk.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.desk)
    world.lease(MINI, 2)
    assert await task == RunResult("cancelled")
    assert not list(world.desk.runner.running())


async def test_the_next_holder_takes_over_a_run_that_still_lives(world: World) -> None:
    world.pin("42", LAPTOP)
    world.laptop.runner.auto = False
    old = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.laptop)
    world.lease(MINI, 2)
    assert await old == RunResult("cancelled")
    new = asyncio.create_task(world.mini.router.run(request(epoch=2)))
    await asyncio.sleep(0.3)  # the first grant would have lapsed by now
    world.laptop.runner.finish("k1", RunResult("ok", ("done",)))
    assert await new == RunResult("ok", ("done",), machine="m-laptop")
    assert keys(world.laptop) == ["k1"]


async def test_an_owner_that_becomes_the_holder_takes_over_its_own_run(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    old = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    world.lease(MINI, 2)
    await old
    new = asyncio.create_task(world.mini.router.run(request(epoch=2)))
    await asyncio.sleep(0.02)
    world.mini.runner.finish("k1", RunResult("ok", ("done",)))
    assert await new == RunResult("ok", ("done",), machine="m-mini")
    assert keys(world.mini) == ["k1"]


async def test_an_order_of_a_machine_that_is_not_the_holder_is_refused(world: World) -> None:
    world.lease(MINI, 2)
    for epoch in (1, 2, 3):
        order = RunOrder(request(epoch=epoch), (1, 1), 1_000_000, world.laptop.clock.now())
        with pytest.raises(PeerError) as caught:
            await world.desk.mesh.request(LAPTOP, order, RunAccepted, within=1)
        assert caught.value.code == "not-holder"
    assert keys(world.laptop) == []


async def test_an_owner_that_has_not_heard_of_the_lease_yet_is_asked_again(world: World) -> None:
    world.lease(MINI, 2, world.desk, world.mini)
    world.pin("42", LAPTOP)
    task = asyncio.create_task(world.mini.router.run(request(epoch=2)))
    await asyncio.sleep(0.02)
    world.lease(MINI, 2, world.laptop)
    assert await task == RunResult("ok", ("laptop says hello",), machine="m-laptop")


@pytest.mark.parametrize(
    "stale",
    [
        RunDone("k1", 1, 1, (1, 0), RunResult("ok", ("stale",))),
        RunDone("k1", 1, 0, (1, 1), RunResult("ok", ("stale",))),
        RunDone("k1", 0, 1, (1, 1), RunResult("ok", ("stale",))),
    ],
)
async def test_a_result_of_an_older_grant_is_refused(world: World, stale: RunDone) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    with pytest.raises(PeerError) as caught:
        await world.mini.mesh.request(DESK, stale, RunDoneTaken, within=1, lane=Lane.NORMAL)
    assert caught.value.code == "stale-grant"
    world.mini.runner.finish("k1", RunResult("ok", ("right",)))
    assert await task == RunResult("ok", ("right",), machine="m-mini")


async def test_a_result_of_a_machine_that_was_not_asked_is_refused(world: World) -> None:
    world.pin("42", MINI)
    world.mini.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.mini)
    forged = RunDone("k1", 1, 1, (1, 1), RunResult("ok", ("forged",)))
    with pytest.raises(PeerError, match="has ended"):
        await world.laptop.mesh.request(DESK, forged, RunDoneTaken, within=1)
    world.mini.runner.finish("k1", RunResult("ok", ("right",)))
    assert await task == RunResult("ok", ("right",), machine="m-mini")


async def test_a_result_after_the_topic_moved_is_refused(world: World) -> None:
    world.desk.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.desk)
    world.log.rows["42"] = Placement("42", MINI, 1, 9, "pinned", MINI)
    world.desk.runner.finish("k1", RunResult("ok", ("too late",)))
    assert await task == RunResult("cancelled")


async def test_a_placement_the_electorate_did_not_take_is_tried_again(world: World) -> None:
    world.log.refusals = 1
    assert (await world.desk.router.run(request())).outcome == "ok"


async def test_one_message_is_dispatched_once_at_a_time(world: World) -> None:
    world.desk.runner.auto = False
    task = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.desk)
    with pytest.raises(InstarError, match="being run already"):
        await world.desk.router.run(request())
    world.desk.router.cancel("k1")
    await task


async def test_a_runner_that_breaks_fails_the_run_instead_of_keeping_it_for_ever(world: World) -> None:
    async def broken(_: object) -> RunResult:
        raise RuntimeError("bug")

    world.pin("42", MINI)
    world.mini.runner.run = broken  # type: ignore[method-assign, assignment]
    result = await world.desk.router.run(request())
    assert result == RunResult("failed", error="the agent runner broke: bug")


async def test_the_next_holder_goes_on_with_a_run_that_lives_on_another_machine(world: World) -> None:
    world.log.rows["42"] = Placement("42", LAPTOP, 1, 1, "placed")
    world.laptop.runner.auto = False
    old = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.laptop)
    world.lease(MINI, 2)
    assert await old == RunResult("cancelled")
    new = asyncio.create_task(world.mini.router.run(request(epoch=2, begun_before=True)))
    await asyncio.sleep(0.3)  # the first grant would have lapsed by now
    world.laptop.runner.finish("k1", RunResult("ok", ("done",)))
    assert await new == RunResult("ok", ("done",), machine="m-laptop")
    assert (keys(world.laptop), keys(world.mini)) == (["k1"], [])
    assert (await world.mini.router.run(request("k2", epoch=2))).machine == "m-mini"


async def test_the_next_holder_runs_anew_only_what_has_surely_ended_elsewhere(world: World) -> None:
    world.log.rows["42"] = Placement("42", LAPTOP, 1, 1, "placed")
    world.laptop.runner.auto = False
    old = asyncio.create_task(world.desk.router.run(request()))
    await begun(world.laptop)
    world.net.isolate(LAPTOP)
    world.lease(MINI, 2, world.desk, world.mini)
    assert await old == RunResult("cancelled")
    new = asyncio.create_task(world.mini.router.run(request(epoch=2, begun_before=True)))
    await eventually(lambda: keys(world.mini))
    assert not list(world.laptop.runner.running()), "its grant was not renewed"
    assert await new == RunResult("ok", ("mini says hello",), machine="m-mini")


async def test_what_the_last_holder_ran_itself_ended_with_its_lease_and_is_not_waited_for() -> None:
    async with World(ttl_us=60_000_000) as world:
        world.log.rows["42"] = Placement("42", DESK, 1, 1, "placed")
        world.net.isolate(DESK)
        world.lease(MINI, 2, world.mini, world.laptop)
        async with asyncio.timeout(20):  # a grant, which would have to be waited for, lasts a minute
            result = await world.mini.router.run(request(epoch=2, begun_before=True))
        assert result.machine == "m-mini"


async def test_an_order_that_arrives_after_its_grant_has_ended_starts_nothing(world: World) -> None:
    """As when the owner was suspended: meanwhile the holder had the message run elsewhere."""
    read = world.mini.clock.now()
    while world.mini.clock.now() < read + 1_000:
        await asyncio.sleep(0)
    for since in (read, world.mini.clock.now() + 60_000_000):  # too old, or of another boot of the machine
        with pytest.raises(PeerError) as caught:
            await world.desk.mesh.request(
                MINI, RunOrder(request(), (1, 1), 1_000, since), RunAccepted, within=1
            )
        assert caught.value.code == "late-order"
    assert keys(world.mini) == []


async def test_a_late_keep_alive_extends_a_grant_only_to_where_the_holder_counts_it(world: World) -> None:
    world.mini.runner.auto = False
    since = world.mini.clock.now()
    order = RunOrder(request(), (1, 1), 500_000, since)
    await world.desk.mesh.request(MINI, order, RunAccepted, within=1)
    await begun(world.mini)
    while list(world.mini.runner.running()):
        world.desk.mesh.send(MINI, RunKeep(1, "k1", since))
        await asyncio.sleep(0.01)
    assert any("grant was not renewed" in event.text for event in world.mini.told)
