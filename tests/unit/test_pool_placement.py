"""Which machine a topic runs on, how that is described, and the ownership epochs."""

from __future__ import annotations

import asyncio

import pytest

from instar_node.contracts import Placement
from instar_node.errors import InstarError
from instar_node.pool.description import TopicPlacementDescription, describe
from instar_node.pool.pins import TopicPlacementPinStore
from instar_node.pool.placement import choose_owner, owner_now, placed
from tests.unit.candidates import Candidate
from tests.unit.fakes_mesh import FakeAuthority, eventually
from tests.unit.pool_support import DESK, LAPTOP, MINI, FakeLog, World, request


def choose(current: Placement | None, *online: str, epoch: int = 1, **load: float) -> str | None:
    machines = (DESK, MINI, LAPTOP)
    candidates = [Candidate(one, one in online, load.get(one.removeprefix("m-"), 0.0)) for one in machines]
    return choose_owner(current, holder=DESK, epoch=epoch, candidates=candidates)


ON_MINI = Placement("42", MINI, 1, 3, "placed")
PINNED = Placement("42", MINI, 1, 3, "pinned", MINI)


def test_a_new_topic_goes_to_the_holder() -> None:
    assert choose(None, DESK, MINI, LAPTOP) == DESK


def test_a_small_difference_in_load_is_a_tie_and_stays_with_the_holder() -> None:
    assert choose(None, DESK, MINI, desk=0.9, mini=0.8) == DESK
    assert choose(None, DESK, MINI, desk=0.5, mini=0.0) == DESK


def test_an_overloaded_holder_hands_on_to_the_least_loaded() -> None:
    assert choose(None, DESK, MINI, LAPTOP, desk=1.0, mini=0.5, laptop=0.2) == LAPTOP
    assert choose(None, DESK, MINI, LAPTOP, desk=1.0, mini=0.2, laptop=0.2) == LAPTOP
    assert choose(None, DESK, MINI, desk=1.0, mini=0.2) == MINI


def test_a_topic_stays_where_it_was_placed_while_that_machine_is_there() -> None:
    assert choose(ON_MINI, DESK, MINI, mini=0.8) == MINI
    assert choose(ON_MINI, DESK, MINI, mini=0.9, desk=0.8) == MINI
    assert choose(ON_MINI, DESK, LAPTOP) == DESK


def test_a_topic_leaves_an_overloaded_machine_for_one_that_is_clearly_less_loaded() -> None:
    assert choose(ON_MINI, DESK, MINI, LAPTOP, mini=0.9, desk=0.5, laptop=0.4) == LAPTOP
    assert choose(ON_MINI, DESK, MINI, LAPTOP, mini=0.9, desk=0.4, laptop=0.4) == DESK, "ties: the holder"
    assert choose(PINNED, DESK, MINI, mini=1.0) == MINI, "a pin is kept whatever the load"


def test_a_machine_with_room_is_decided_on_without_asking_what_the_others_may_do() -> None:
    class Unasked(Candidate):
        @property
        def open(self) -> bool:  # type: ignore[override]
            raise AssertionError("looking through every gate for every message")

    mini = Unasked(MINI, True, 0.0)
    assert choose_owner(None, holder=DESK, epoch=1, candidates=[Unasked(DESK, True, 0.8), mini]) == DESK
    with pytest.raises(AssertionError, match="every gate"):
        choose_owner(None, holder=DESK, epoch=1, candidates=[Unasked(DESK, True, 1.0), mini])


def test_a_machine_that_is_barred_gets_nothing_new_and_keeps_what_it_has() -> None:
    barred = [Candidate(DESK, True, 1.0), Candidate(MINI, True, 0.0, open=False)]
    assert choose_owner(None, holder=DESK, epoch=1, candidates=barred) == DESK
    assert choose_owner(ON_MINI, holder=DESK, epoch=1, candidates=barred) == MINI


def test_a_machine_that_has_just_come_back_is_not_given_its_topic_yet() -> None:
    back = [Candidate(DESK, True, 0.0), Candidate(MINI, True, 0.0, settled=False)]
    waiting = Placement("42", None, 1, 4, "pinned", MINI)
    assert choose_owner(waiting, holder=DESK, epoch=1, candidates=back) is None
    assert choose_owner(PINNED, holder=DESK, epoch=1, candidates=back) == MINI, "it never lost it"


def test_a_topic_placed_in_an_earlier_epoch_follows_the_holder() -> None:
    assert choose(ON_MINI, DESK, MINI, epoch=2) == DESK


def test_a_pin_holds_through_epochs_and_waits_for_its_machine() -> None:
    assert choose(PINNED, DESK, MINI, epoch=5) == MINI
    assert choose(PINNED, DESK, LAPTOP) is None


def test_an_unchanged_owner_needs_no_new_ownership_epoch() -> None:
    assert placed(ON_MINI, "42", MINI, 1) is ON_MINI
    assert placed(PINNED, "42", MINI, 7) is PINNED


def test_every_change_gets_a_higher_ownership_epoch() -> None:
    assert placed(None, "42", DESK, 1) == Placement("42", DESK, 1, 1, "placed")
    assert placed(ON_MINI, "42", DESK, 1) == Placement("42", DESK, 1, 4, "placed")
    assert placed(ON_MINI, "42", MINI, 2) == Placement("42", MINI, 2, 1, "placed")
    assert placed(PINNED, "42", None, 1) == Placement("42", None, 1, 4, "pinned", MINI)


@pytest.mark.parametrize(
    ("placement", "online", "epoch", "owner"),
    [
        (None, {DESK, MINI}, 1, None),
        (Placement("42", None, 1, 1, "unowned"), {DESK, MINI}, 1, None),
        (ON_MINI, {DESK, MINI}, 1, MINI),
        (ON_MINI, {DESK}, 1, DESK),
        (ON_MINI, {DESK, MINI}, 2, DESK),
        (PINNED, {DESK, MINI}, 9, MINI),
        (PINNED, {DESK}, 1, None),
        (Placement("42", None, 1, 4, "pinned", MINI), {DESK, MINI}, 1, None),
    ],
)
def test_the_owner_between_messages(
    placement: Placement | None, online: set[str], epoch: int, owner: str | None
) -> None:
    assert owner_now(placement, holder=DESK, epoch=epoch, online=online.__contains__) == owner


def described(placement: Placement | None, *online: str) -> TopicPlacementDescription:
    return describe(
        "42",
        placement,
        me=MINI,
        holder=DESK,
        epoch=1,
        away=lambda machine: None if machine in online else "is offline; runs there when it is back",
        nickname=lambda machine: machine.removeprefix("m-"),
    )


def test_a_topic_nobody_has_is_described_as_unowned() -> None:
    assert described(None, DESK, MINI) == TopicPlacementDescription(
        "42", None, None, "unowned", None, DESK, "desk", "none", False, None, None
    )


def test_a_pinned_topic_is_described_with_its_pin_carried_out() -> None:
    assert described(PINNED, DESK, MINI) == TopicPlacementDescription(
        "42", MINI, "mini", "pinned", MINI, DESK, "desk", "actuated", True, None, (1, 3)
    )


def test_a_pin_to_a_machine_that_is_away_is_pending_and_says_why() -> None:
    found = described(PINNED, DESK)
    assert (found.owner, found.pin_state) == (None, "pending")
    assert found.pending_reason == "mini is offline; runs there when it is back"


def test_a_pin_not_yet_carried_out_is_pending_too() -> None:
    found = described(Placement("42", None, 1, 4, "pinned", MINI), DESK, MINI)
    assert (found.owner, found.pin_state, found.pending_reason) == (None, "pending", "moving to mini")


async def test_only_the_awake_machine_writes_placements() -> None:
    authority, log = FakeAuthority(DESK), FakeLog()
    pins = TopicPlacementPinStore(log, authority)
    authority.set(DESK, 1, valid=False)
    for attempt in (pins.place("42", DESK), pins.pin("42", MINI, online=True)):
        with pytest.raises(InstarError) as caught:
            await attempt
        assert caught.value.code == "not-awake"
    assert log.writes == []


async def test_pins_are_written_before_the_answer_and_come_off_again() -> None:
    authority, log = FakeAuthority(DESK), FakeLog()
    pins = TopicPlacementPinStore(log, authority)
    authority.set(DESK, 4)
    assert await pins.pin("42", MINI, online=True) == log.rows["42"]
    assert log.rows["42"] == Placement("42", MINI, 4, 1, "pinned", MINI)
    await pins.pin("43", LAPTOP, online=False)
    assert pins.waiting() == [Placement("43", None, 4, 1, "pinned", LAPTOP)]
    assert await pins.unpin("42", MINI) == Placement("42", MINI, 4, 2, "placed")
    assert await pins.unpin("42", MINI) == Placement("42", MINI, 4, 2, "placed")
    assert len(log.writes) == 3
    assert await pins.unpin("never seen", MINI) is None


async def test_the_pool_knows_who_is_there_how_busy_and_with_how_many_topics() -> None:
    async with World() as world:
        world.pin("1", MINI)
        world.pin("2", LAPTOP)
        world.log.rows["3"] = Placement("3", DESK, 1, 1, "placed")
        world.net.isolate(LAPTOP)
        world.mini.runner.auto = False
        world.desk.pool._slots = world.mini.pool._slots = 4
        await world.mini.pool.stop()
        task = asyncio.create_task(world.mini.runner.run(request()))
        await asyncio.sleep(0)
        world.net.cut(DESK, MINI)
        world.net.mend(DESK, MINI)  # load is told when a tunnel comes up
        await eventually(lambda: world.desk.pool.machines()[1].running == 1)
        desk, mini, laptop = world.desk.pool.machines()
        assert (desk.nickname, desk.online, desk.running, desk.load, desk.topics) == ("desk", True, 0, 0.0, 1)
        assert (mini.online, mini.running, mini.load, mini.topics) == (True, 1, 0.25, 1)
        assert (laptop.online, laptop.topics) == (False, 0)
        world.mini.runner.cancel("k1")
        await task


async def test_topics_spread_only_over_machines_with_the_same_kind_of_agent() -> None:
    async with World() as world:
        world.mini.pool._agent = "telegraph"
        world.net.cut(DESK, MINI)
        world.net.mend(DESK, MINI)  # the kind is told with the load, when a tunnel comes up
        await eventually(lambda: not world.desk.pool.candidates()[1].open)
        assert [one.open for one in world.desk.pool.candidates()] == [True, False, True]
        world.desk.pool.dispatched = lambda machine: 99 if machine == DESK else 0
        assert (await world.desk.router.run(request())).machine == LAPTOP


async def test_load_is_told_when_it_changes_and_not_otherwise() -> None:
    async with World() as world:
        for machine in world.all:
            await machine.pool.stop()
        clock = world.mini.clock
        turns = 0

        async def sleep(seconds: float) -> None:
            nonlocal turns
            turns += 1
            await asyncio.sleep(0)
            if turns > 5:
                await asyncio.Event().wait()

        clock.sleep = sleep  # type: ignore[method-assign]
        before = len(world.net.log)
        await world.mini.pool.start()
        await eventually(lambda: turns > 5)
        told = [entry for entry in world.net.log[before:] if entry[2] == "pool.load"]
        assert told == [(MINI, DESK, "pool.load"), (MINI, LAPTOP, "pool.load")]
