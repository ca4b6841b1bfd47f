"""Moving topics and the lease: answered at once, drawn step by step, asked only where it matters."""

from __future__ import annotations

import asyncio

from instar_node.errors import InstarError
from instar_tui.widgets.chrome import _newest_steps
from tests.tui.conftest import Centre, running
from tests.tui.fake_node import ATTIC, MINI, FakeNode


async def test_with_two_machines_one_key_transfers_to_the_other() -> None:
    async with running(FakeNode(2)) as centre:
        await centre.go("topics")
        await centre.pilot.press("t")
        await centre.until("42 runs on mini")
        assert centre.node.called("transfer")[0].to == "mini"
        assert "✔ drained 4ms" in centre.text()
        assert "z takes it back" in centre.text()


async def test_with_more_a_digit_picks(centre: Centre) -> None:
    await centre.go("topics")
    await centre.pilot.press("t")
    await centre.until("move 42 to")
    assert "1  attic" in centre.text()
    await centre.pilot.press("2")
    await centre.until("42 runs on mini")


async def test_the_row_says_moving_before_the_node_has_answered(node: FakeNode) -> None:
    node.gate = asyncio.Event()
    async with running(node) as centre:
        await centre.go("topics")
        centre.app.operations.transfer("42", "mini")
        await centre.until("desk→mini", 0.5)
        assert "moving…" in centre.text()
        node.gate.set()
        await centre.until(lambda: "moving…" not in centre.text())
        assert "■ pinned" in centre.text()


async def test_a_transfer_is_taken_back_with_one_key(centre: Centre) -> None:
    await centre.go("topics")
    centre.app.operations.transfer("42", "mini")
    await centre.until("42 runs on mini")
    await centre.pilot.press("z")
    await centre.until("42 runs on desk")
    assert centre.node.called("transfer")[1].undo


async def test_running_work_asks_and_the_answer_carries_the_token(node: FakeNode) -> None:
    node.confirm = True
    async with running(node) as centre:
        await centre.go("topics")
        centre.app.operations.transfer("42", "mini")
        await centre.until("42 is being answered on desk")
        await centre.pilot.press("y")
        await centre.until("42 runs on mini")
        assert [body.confirm for body in node.called("transfer")] == [None, "token-1"]


async def test_a_no_leaves_the_topic_where_it_is(node: FakeNode) -> None:
    node.confirm = True
    async with running(node) as centre:
        await centre.go("topics")
        centre.app.operations.transfer("42", "mini")
        await centre.until("42 is being answered on desk")
        await centre.pilot.press("n")
        await centre.until(lambda: "moving…" not in centre.text())
        assert node.topics_[0].owner_nickname == "desk"
        assert len(node.called("transfer")) == 1


async def test_a_refusal_is_shown_with_its_hint(centre: Centre) -> None:
    centre.node.failing = InstarError("rate-limited", "42 moved 3 s ago", "wait 7 s, or z")
    centre.app.operations.transfer("42", "mini")
    await centre.until("wait 7 s, or z")
    assert not centre.app.mesh.moving


async def test_handing_off_draws_the_steps_and_the_header_follows(centre: Centre) -> None:
    await centre.go("machines")
    await centre.pilot.press("j", "j", "h")
    await centre.until("mini is awake, epoch 8")
    assert centre.node.called("handoff")[0].to == MINI
    assert "✔ drained" in centre.text()
    await centre.until(lambda: "● standby" in centre.lines()[0])


async def test_a_handoff_that_was_given_up_and_takes_place_after_all_is_settled_to_the_truth(
    centre: Centre,
) -> None:
    given_up = InstarError("handoff-failed", "the successor has not taken the lease yet")
    centre.node.failing = given_up
    centre.app.operations.hand_off(next(m for m in centre.app.mesh.machines() if m.nickname == "mini"))
    await centre.until("✕ handing off to mini")
    centre.node.failing = None
    centre.node.machines_[0].role, centre.node.machines_[1].role = "standby", "awake"
    centre.node.epoch = 8
    centre.node.say("lease", "mini is awake, epoch 8")
    await centre.until("✔ mini is awake, epoch 8")


async def test_the_nearest_standby_is_offered_on_leaving_and_the_lease_is_handed_over(node: FakeNode) -> None:
    node.machines_[2].electorate = False
    async with running(node) as centre:
        await centre.pilot.press("q")
        await centre.until("Who answers when you leave?")
        assert "hand off to mini, then leave" in centre.text()
        await centre.pilot.press("h")
        await centre.until(lambda: not centre.app.is_running or centre.app._exit)
        assert node.called("handoff")[0].to == MINI


async def test_ctrl_c_asks_before_it_leaves() -> None:
    async with running(FakeNode(1)) as centre:
        await centre.pilot.press("ctrl+c")
        await centre.until("Leave the control centre?")
        await centre.pilot.press("y")
        await centre.until(lambda: centre.app._exit)


async def test_a_baton_is_kept_by_who_wants_to_come_back_to_it(node: FakeNode) -> None:
    node.expires = False
    async with running(node) as centre:
        await centre.pilot.press("q")
        await centre.until("Keeping the role: nobody answers until you come back")
        await centre.pilot.press("k")
        await centre.until(lambda: centre.app._exit)
        await centre.app.mesh.close()
        assert centre.connection.keep_baton is True


async def test_leaving_a_daemon_asks_nothing(node: FakeNode) -> None:
    async with running(node, embedded=False) as centre:
        await centre.pilot.press("q")
        await centre.pilot.pause()
        assert centre.app._exit


async def test_escape_goes_back_to_the_overview_and_asks_there(node: FakeNode) -> None:
    async with running(node, embedded=False) as centre:
        await centre.go("topics")
        await centre.pilot.press("escape")
        assert centre.app.current_mode == "overview"
        await centre.pilot.press("escape")
        await centre.until("Leave the control centre?")
        await centre.pilot.press("escape")
        assert not centre.app._exit


async def test_read_only_changes_nothing(node: FakeNode) -> None:
    async with running(node, read_only=True) as centre:
        assert "read-only" in centre.lines()[0]
        for place, key in (
            ("topics", "t"),
            ("topics", "u"),
            ("machines", "h"),
            ("machines", "x"),
            ("lease", "w"),
        ):
            await centre.go(place)
            await centre.pilot.press(key)
        await centre.go("pair")
        await centre.pilot.pause(0.2)
        centre.app.run_by_id("wakeup")
        await centre.until("read-only view")
        changed = {name for name, _ in node.calls} - {"messages", "outbox", "pair_view"}
        assert changed == set()


async def test_the_palette_understands_a_sentence(centre: Centre) -> None:
    await centre.pilot.press("ctrl+p")
    await centre.pilot.press(*"transfer 42 attic")
    await centre.until("transfer topic 42 to attic")
    await centre.pilot.press("enter", "enter")
    await centre.until(lambda: centre.node.called("transfer"))
    assert (centre.node.called("transfer")[0].topic, centre.node.called("transfer")[0].to) == ("42", "attic")


async def test_waking_up_where_it_is_awake_is_no_error(centre: Centre) -> None:
    await centre.pilot.press("w")
    await centre.until("desk is already awake")
    assert centre.node.called("wakeup") == []


async def test_waking_up_moves_the_lease_here(node: FakeNode) -> None:
    node.machines_[0].role, node.machines_[2].role = "standby", "awake"
    async with running(node) as centre:
        await centre.pilot.press("w")
        await centre.until("desk is awake, epoch 8")
        assert node.machines_[2].machine_id == ATTIC


def test_of_many_steps_the_newest_are_shown_that_fit() -> None:
    steps = [("prepare", 1.0), ("tail_synced", 3.0), ("committed", 9.0)]

    def words(room: int) -> str:
        return "".join(part for part, _ in _newest_steps(steps, room))

    assert words(80) == "✔ prepare 1ms  ✔ tail synced 2ms  ✔ committed 6ms  "
    assert words(45) == "… ✔ tail synced 2ms  ✔ committed 6ms  "
    assert words(22) == "… ✔ committed 6ms  "
    assert words(10) == ""


async def test_a_drill_is_drawn_step_by_step_with_the_machine_it_is_with(node: FakeNode) -> None:
    node.gate = asyncio.Event()
    async with running(node) as centre:
        await centre.go("health")
        await centre.pilot.press("v")
        await centre.until("drill with every machine")
        for peer in (MINI, ATTIC):
            node.say(
                "drill", "works", peer=peer, component="tunnel", passed=True, finding="16 KiB", took_ms=2.0
            )
        await centre.until("✔ attic tunnel")
        assert "✔ mini tunnel" in centre.lines()[-2]
        assert "running" in centre.text()
        node.gate.set()
        await centre.until("everything works with")
