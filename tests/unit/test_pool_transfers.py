"""Moving a topic on a living pool: drained, brought along, pinned, handed over; queued, undone, unpinned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from instar_node.contracts import Placement, RunResult
from instar_node.errors import InstarError
from instar_node.pool import transfers as module
from instar_node.pool.chat_commands import ChatCommands
from instar_node.pool.nicknames import NicknameCommand
from instar_node.pool.transfer_report import TransferRequest
from tests.unit.fakes_mesh import eventually
from tests.unit.pool_support import DESK, LAPTOP, MINI, World, request


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "SETTLE_S", 0.02)
    async with World() as world:
        yield world


async def refused(world: World, wish: TransferRequest) -> InstarError:
    with pytest.raises(InstarError) as caught:
        await world.desk.transfers.transfer(wish)
    return caught.value


def steps(world: World) -> list[str]:
    return [event.data["step"] for event in world.desk.told if event.kind == "transfer"]


async def test_a_topic_moves_step_by_step_and_its_next_message_runs_there(world: World) -> None:
    await world.desk.router.run(request())
    result = await world.desk.transfers.transfer(TransferRequest("42", "Mini"))
    assert (result.outcome, result.owner, result.owner_nickname, result.source) == (
        "moved",
        MINI,
        "mini",
        DESK,
    )
    assert result.ownership_epoch == (1, 2)
    assert [step.step for step in result.steps] == ["drained", "tail_synced", "moved"]
    assert [step.at_ms for step in result.steps] == sorted(step.at_ms for step in result.steps)
    assert result.took_ms >= result.steps[-1].at_ms
    assert steps(world) == ["drained", "tail_synced", "moved"]
    assert world.desk.tail.asked == [MINI]
    assert world.log.rows["42"] == Placement("42", MINI, 1, 2, "pinned", MINI)
    assert await world.desk.router.run(request("k2")) == RunResult(
        "ok", ("mini says hello",), machine="m-mini"
    )


async def test_a_machine_without_the_conversation_does_not_get_the_topic(world: World) -> None:
    await world.desk.router.run(request())
    before = world.log.rows["42"]
    world.desk.tail.complete = False
    error = await refused(world, TransferRequest("42", "mini"))
    assert error.code == "tail-behind"
    assert world.log.rows["42"] == before
    world.desk.runner.auto = False
    running = asyncio.create_task(world.desk.router.run(request("k2")))
    await eventually(lambda: bool(list(world.desk.router.running("42"))))
    token = (await refused(world, TransferRequest("42", "mini"))).extra["confirm"]
    assert (await refused(world, TransferRequest("42", "mini", token))).code == "tail-behind"
    world.desk.runner.finish("k2", RunResult("ok", ("done",)))
    assert (await running).outcome == "ok", "nothing was stopped for a move that could not be"
    world.desk.tail.complete = True
    assert (await world.desk.transfers.transfer(TransferRequest("42", "mini"))).outcome == "moved"


async def test_a_topic_is_not_called_moved_already_before_the_electorate_knows(world: World) -> None:
    place, wish = world.log.set_placement, TransferRequest("42", "mini")

    async def written_here_only(placement: Placement) -> None:
        await place(placement)
        raise InstarError("lease-lost", "not seen to arrive")

    world.log.set_placement = written_here_only  # type: ignore[method-assign]
    assert (await refused(world, wish)).code == "lease-lost"
    assert world.log.rows["42"].owner == MINI
    assert (await refused(world, wish)).code == "lease-lost"
    world.log.set_placement = place  # type: ignore[method-assign]
    writes = len(world.log.writes)
    for _ in range(2):
        assert (await world.desk.transfers.transfer(wish)).outcome == "noop"
    assert len(world.log.writes) == writes + 1


async def test_two_moves_of_one_topic_at_once_are_one_move_and_a_refusal(world: World) -> None:
    world.desk.runner.auto = False
    running = asyncio.create_task(world.desk.router.run(request()))
    await eventually(lambda: bool(list(world.desk.router.running("42"))))
    asked = [
        asyncio.create_task(world.desk.transfers.transfer(TransferRequest("42", to)))
        for to in ("mini", "laptop")
    ]
    results = await asyncio.gather(*asked, return_exceptions=True)
    codes = [error.code for error in results if isinstance(error, InstarError)]
    assert codes == ["needs-confirmation", "transfer-running"]
    world.desk.runner.finish("k1", RunResult("ok", ("done",)))
    await running
    both = await asyncio.gather(
        *(world.desk.transfers.transfer(TransferRequest("42", to)) for to in ("mini", "laptop")),
        return_exceptions=True,
    )
    assert [getattr(one, "outcome", getattr(one, "code", "")) for one in both] == [
        "moved",
        "transfer-running",
    ]
    assert world.log.rows["42"].pinned_to == MINI


async def test_a_confirmation_is_good_for_one_attempt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instar_node.pool.transfers.DRAIN_S", 0.05)
    world.desk.runner.auto, world.desk.runner.stubborn = False, True
    running = asyncio.create_task(world.desk.router.run(request()))
    await eventually(lambda: bool(list(world.desk.router.running("42"))))
    token = (await refused(world, TransferRequest("42", "mini"))).extra["confirm"]
    assert (await refused(world, TransferRequest("42", "mini", token))).code == "drain-timeout"
    again = await refused(world, TransferRequest("42", "mini", token))
    assert again.code == "needs-confirmation"
    assert again.message.startswith("The situation has changed.")
    assert again.extra["confirm"] != token
    world.desk.runner.finish("k1", RunResult("cancelled"))
    await running


async def test_only_the_holder_moves_topics(world: World) -> None:
    with pytest.raises(InstarError) as caught:
        await world.mini.transfers.transfer(TransferRequest("42", "mini"))
    assert caught.value.code == "not-awake"


async def test_moving_to_where_it_is_pins_it_and_moves_nothing(world: World) -> None:
    await world.desk.router.run(request())
    result = await world.desk.transfers.transfer(TransferRequest("42", "here"))
    assert (result.outcome, result.owner) == ("noop", DESK)
    assert world.log.rows["42"] == Placement("42", DESK, 1, 2, "pinned", DESK)
    assert (await world.desk.transfers.transfer(TransferRequest("42", "desk"))).outcome == "noop"
    assert len(world.log.writes) == 2


async def test_running_work_is_asked_about_then_stopped_and_run_anew_there(world: World) -> None:
    world.desk.runner.auto = False
    running = asyncio.create_task(world.desk.router.run(request()))
    await eventually(lambda: "k1" in world.desk.runner.running())
    error = await refused(world, TransferRequest("42", "mini"))
    assert error.extra["conditions"] == ["running-work"]
    assert "k1" in world.desk.runner.running(), "asking stops nothing"
    moved = asyncio.create_task(
        world.desk.transfers.transfer(TransferRequest("42", "mini", error.extra["confirm"]))
    )
    assert await running == RunResult("cancelled")
    assert await world.desk.router.run(request(n=2)) == RunResult(
        "ok", ("mini says hello",), machine="m-mini"
    )
    assert (await moved).outcome == "moved"


async def test_a_run_that_ends_in_a_moment_is_not_asked_about(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 5.0)
    world.desk.runner.auto = False
    running = asyncio.create_task(world.desk.router.run(request()))
    await eventually(lambda: "k1" in world.desk.runner.running())
    moving = asyncio.create_task(world.desk.transfers.transfer(TransferRequest("42", "mini")))
    await asyncio.sleep(0.02)
    world.desk.runner.finish("k1", RunResult("ok", ("done",)))
    assert await running == RunResult("ok", ("done",), machine="m-desk")
    assert (await moving).outcome == "moved"


async def test_an_answer_being_sent_is_asked_about(world: World) -> None:
    world.desk.work.sending.add("42")
    error = await refused(world, TransferRequest("42", "mini"))
    assert error.extra["conditions"] == ["mid-reply"]


async def test_nothing_begins_while_a_topic_moves(world: World) -> None:
    gate = asyncio.Event()

    async def slow(machine: str, within: float) -> bool:
        await gate.wait()
        return True

    world.desk.tail.caught_up = slow  # type: ignore[method-assign]
    moving = asyncio.create_task(world.desk.transfers.transfer(TransferRequest("42", "mini")))
    await eventually(lambda: world.desk.transfers.moving_to("42") == MINI)
    message = asyncio.create_task(world.desk.router.run(request()))
    error = await refused(world, TransferRequest("42", "laptop"))
    assert error.code == "transfer-running"
    await asyncio.sleep(0.02)
    assert not world.desk.runner.requests
    gate.set()
    assert (await moving).outcome == "moved"
    assert await message == RunResult("ok", ("mini says hello",), machine="m-mini")
    assert world.desk.transfers.moving_to("42") is None


async def test_work_that_will_not_end_leaves_the_topic_where_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.05)
    world.desk.runner.auto, world.desk.runner.stubborn = False, True
    running = asyncio.create_task(world.desk.router.run(request()))
    await eventually(lambda: "k1" in world.desk.runner.running())
    token = (await refused(world, TransferRequest("42", "mini"))).extra["confirm"]
    assert (await refused(world, TransferRequest("42", "mini", token))).code == "drain-timeout"
    assert world.log.rows["42"].owner == DESK
    world.desk.runner.finish("k1", RunResult("cancelled"))
    await running


async def test_a_placement_that_is_not_replicated_leaves_the_topic_where_it_was(world: World) -> None:
    world.log.refusals = 1
    assert (await refused(world, TransferRequest("42", "mini"))).code == "not-replicated"
    assert world.desk.transfers.moving_to("42") is None
    assert (await world.desk.transfers.transfer(TransferRequest("42", "mini"))).outcome == "moved"


async def test_a_move_to_a_machine_that_is_away_is_queued_and_carried_out_when_it_is_back(
    world: World,
) -> None:
    world.net.isolate(LAPTOP)
    error = await refused(world, TransferRequest("42", "laptop"))
    assert error.extra["conditions"] == ["offline"]
    result = await world.desk.transfers.transfer(TransferRequest("42", "laptop", error.extra["confirm"]))
    assert (result.outcome, result.owner) == ("queued", None)
    assert result.pending_reason == "laptop is offline; runs there when it is back"
    assert world.desk.transfers.describe("42").pin_state == "pending"
    world.net.rejoin(LAPTOP)
    await eventually(lambda: world.desk.transfers.describe("42").pin_state == "actuated")
    assert world.log.rows["42"] == Placement("42", LAPTOP, 1, 2, "pinned", LAPTOP)
    assert any("it is back" in event.text for event in world.desk.told)


async def test_a_queued_move_survives_a_new_holder(world: World) -> None:
    world.net.isolate(LAPTOP)
    token = (await refused(world, TransferRequest("42", "laptop"))).extra["confirm"]
    await world.desk.transfers.transfer(TransferRequest("42", "laptop", token))
    world.lease(MINI, 2)
    world.net.rejoin(LAPTOP)
    await eventually(lambda: world.log.rows["42"].owner == LAPTOP)
    assert world.log.rows["42"].epoch == 2


async def test_a_machine_that_came_back_between_two_holders_gets_its_topic_from_the_second(
    world: World,
) -> None:
    world.net.isolate(LAPTOP)
    token = (await refused(world, TransferRequest("42", "laptop"))).extra["confirm"]
    await world.desk.transfers.transfer(TransferRequest("42", "laptop", token))
    world.desk.authority.valid = False
    world.net.rejoin(LAPTOP)
    await asyncio.sleep(0.01)
    assert world.log.rows["42"].owner is None
    world.lease(MINI, 2)
    await eventually(lambda: world.log.rows["42"].owner == LAPTOP)


async def test_a_topic_moves_again_only_after_a_while_but_can_be_taken_back_at_once(world: World) -> None:
    await world.desk.router.run(request())
    await world.desk.transfers.transfer(TransferRequest("42", "mini"))
    assert (await refused(world, TransferRequest("42", "laptop"))).code == "rate-limited"
    result = await world.desk.transfers.transfer(TransferRequest("42", undo=True))
    assert (result.outcome, result.owner) == ("moved", DESK)
    assert world.log.rows["42"] == Placement("42", DESK, 1, 3, "placed"), "it was not pinned before"
    assert (await refused(world, TransferRequest("42", undo=True))).code == "nothing-to-undo"


async def test_taking_back_restores_the_pin_it_had(world: World) -> None:
    world.pin("42", LAPTOP)
    await world.desk.transfers.transfer(TransferRequest("42", "mini"))
    await world.desk.transfers.transfer(TransferRequest("42", undo=True))
    assert world.log.rows["42"] == Placement("42", LAPTOP, 1, 3, "pinned", LAPTOP)


async def test_a_move_is_not_taken_back_to_a_machine_that_was_removed(world: World) -> None:
    world.pin("42", LAPTOP)
    await world.desk.transfers.transfer(TransferRequest("42", "mini"))
    world.members.remove(LAPTOP)
    error = await refused(world, TransferRequest("42", undo=True))
    assert (error.status, error.extra["known"]) == (404, ["desk", "mini"])
    assert error.message.endswith("is called laptop")
    assert world.log.rows["42"].pinned_to == MINI


@pytest.mark.parametrize("gone", ["removed", "witness"])
async def test_topics_of_a_machine_that_runs_nothing_any_more_are_freed(world: World, gone: str) -> None:
    world.net.isolate(LAPTOP)
    world.pin("42", LAPTOP)
    world.pin("43", MINI)
    waiting = asyncio.create_task(world.desk.router.run(request()))
    await eventually(lambda: world.desk.router.waiting("42") == 1)
    world.members.remove(LAPTOP, witness=gone == "witness")
    world.net.rejoin(LAPTOP)
    pending = world.desk.transfers.describe("42")
    assert (pending.owner, pending.pin_state) == (None, "pending")
    assert pending.pending_reason == "laptop runs no agent: it was removed, or is a witness"
    await world.desk.transfers.free_orphans()
    assert (await waiting).machine == DESK
    assert world.log.rows["42"].pinned_to is None
    assert world.log.rows["43"].pinned_to == MINI


async def test_a_machine_removed_while_a_topic_moves_to_it_does_not_keep_the_topic(world: World) -> None:
    gate = asyncio.Event()

    async def slow(machine: str, within: float) -> bool:
        await gate.wait()
        return True

    world.desk.tail.caught_up = slow  # type: ignore[method-assign]
    moving = asyncio.create_task(world.desk.transfers.transfer(TransferRequest("42", "mini")))
    await eventually(lambda: world.desk.transfers.moving_to("42") == MINI)
    gate.set()
    write = world.log.set_placement

    async def removed_meanwhile(placement: Placement) -> None:
        if placement.pinned_to == MINI:
            world.members.remove(MINI)
            freeing.append(asyncio.create_task(world.desk.transfers.free_orphans()))
            await asyncio.sleep(0.01)
        await write(placement)

    freeing: list[asyncio.Task[None]] = []
    world.log.set_placement = removed_meanwhile  # type: ignore[method-assign]
    await moving
    await freeing[0]
    assert world.log.rows["42"].pinned_to is None


async def test_there_is_nothing_to_take_back_before_the_first_move(world: World) -> None:
    assert (await refused(world, TransferRequest("42", undo=True))).code == "nothing-to-undo"


async def test_unpinning_leaves_the_topic_where_it_runs(world: World) -> None:
    world.pin("42", MINI)
    found = await world.desk.transfers.unpin("42")
    assert (found.owner, found.reason, found.pinned_to, found.pin_state) == (MINI, "placed", None, "none")
    assert await world.desk.transfers.unpin("42") == found
    assert (await world.desk.transfers.unpin("never seen")).reason == "unowned"


async def test_unpinning_a_topic_that_waits_sets_its_messages_free(world: World) -> None:
    world.net.isolate(LAPTOP)
    world.pin("42", LAPTOP)
    waiting = asyncio.create_task(world.desk.router.run(request()))
    await eventually(lambda: world.desk.router.waiting("42") == 1)
    await world.desk.transfers.unpin("42")
    assert await waiting == RunResult("ok", ("desk says hello",), machine="m-desk")


# -- from inside the conversation -------------------------------------------------------------------------


def chat(world: World) -> ChatCommands:
    desk = world.desk
    return ChatCommands(desk.router, NicknameCommand(desk.nicknames), desk.transfers)


async def said(world: World, commands: ChatCommands, text: str) -> str:
    result = await commands.run(request(text, text=text))
    assert result.outcome == "ok"
    return result.replies[0]


async def test_what_passes_through_to_the_agent_may_do_what_the_agent_may(world: World) -> None:
    commands, agent = chat(world), world.desk.runner
    await said(world, commands, "hello")
    assert not commands.acts("42")
    agent.harmless = False
    assert commands.acts("42")


async def test_a_command_in_the_conversation_moves_its_topic_and_the_agent_never_sees_it(
    world: World,
) -> None:
    commands = chat(world)
    assert await said(world, commands, "run this on the mini") == "Moved to mini."
    assert await said(world, commands, "run this on the mini") == "Already on mini."
    assert (
        await said(world, commands, "should we run this on desk?") == "mini says should we run this on desk?"
    )
    assert await said(world, commands, "/undo") == "Moved to desk."
    assert await said(world, commands, "pin this here") == "Already on desk."
    assert await said(world, commands, "unpin this") == "Unpinned; runs on desk."
    assert not world.desk.runner.requests


async def test_here_is_the_machine_on_which_the_person_wrote(world: World) -> None:
    there = msgspec.structs.replace(request(text="move it back here"), via=MINI)
    assert (await chat(world).run(there)).replies == ("Moved to mini.",)
    assert world.log.rows["42"].pinned_to == MINI


async def test_a_command_that_needs_a_yes_says_how(world: World) -> None:
    world.net.isolate(LAPTOP)
    commands = chat(world)
    answer = await said(world, commands, "/move laptop")
    assert "laptop is offline" in answer
    assert answer.endswith("Say: /move laptop yes")
    assert await said(world, commands, "/move laptop yes") == (
        "Queued: laptop is offline; runs there when it is back."
    )


async def test_an_unknown_name_is_answered_with_the_known_ones(world: World) -> None:
    assert await said(world, chat(world), "/move nowhere") == (
        "no machine that runs topics is called nowhere. known: desk, mini, laptop."
    )


async def test_a_command_on_a_machine_that_just_lost_the_lease_is_left_to_the_next(world: World) -> None:
    world.lease(MINI, 2)
    assert await chat(world).run(request(text="/move laptop")) == RunResult("cancelled")
