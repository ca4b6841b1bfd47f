"""The live drill between two whole nodes, and what it opens and shuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_node.events import Event
from instar_node.node import Node
from tests.unit.node_world import a_home, lines, pair, running, until

COMPONENTS = ["tunnel", "updates", "lease", "livetail", "delivery", "fencing", "transfer", "handoff"]


async def gates(node: Node) -> dict[str, str]:
    return {gate.gate: gate.state for gate in (await node.api.flags()).gates}


@pytest.mark.parametrize("hub", [True, False], ids=["path-hub", "embedded"])
async def test_a_drill_asked_for_tries_everything_and_moves_the_role_there_and_back(
    tmp_path: Path, hub: bool
) -> None:
    async with pair(tmp_path, hub=hub) as (desk, mini):
        await desk.api.send(t.SendRequest("work", "before"))
        epoch = (await desk.api.lease()).epoch
        told = heard(desk)
        result = await mini.api.verify(t.VerifyRequest())
        (drill,) = result.drills
        assert result.passed, drill.finding
        assert [event.data.get("component", "over") for event in told] == [*COMPONENTS, "handoff", "over"]
        assert len({event.data["drill"] for event in told}) == 1, "one drill, whoever folds its lines"
        assert all(event.text for event in told)
        assert [step.component for step in drill.steps] == COMPONENTS
        assert drill.live
        assert (drill.peer, drill.signed_by) == (mini.machine_id, desk.machine_id)
        lease = await desk.api.lease()
        assert (lease.holder, lease.epoch) == (desk.machine_id, epoch + 2)
        assert set((await gates(desk)).values()) == {"open"}
        await until(lambda: _all_open(mini))
        topics = await desk.api.topics()
        assert [row.topic for row in topics.topics] == ["work"]
        assert await lines(desk, "work") == [("user", "before"), ("agent", "before")]


def heard(node: Node) -> list[Event]:
    """The events of drills from now on."""
    told: list[Event] = []
    node._parts.base.events.listen(lambda event: told.append(event) if event.kind == "drill" else None)
    return told


async def _all_open(node: Node) -> bool:
    return set((await gates(node)).values()) == {"open"}


async def test_a_drill_runs_by_itself_after_a_join_and_the_epoch_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.verification.rehearsals.SETTLE_US", 1_000)
    async with pair(tmp_path) as (desk, mini):
        told = heard(desk)
        assert (await desk.api.lease()).epoch == 1
        await until(lambda: _all_open(desk))
        await until(lambda: _all_open(mini))
        assert (await desk.api.lease()).epoch == 1
        for node in (desk, mini):
            results = (await node.api.e2e_results()).results
            assert sorted(one.component for one in results) == sorted(COMPONENTS)
            assert all(one.passed and one.verified and not one.live for one in results)
            assert {one.signed_by for one in results} == {desk.machine_id}
        await until(lambda: told and told[-1].data.get("over"))
        assert [event.text for event in told if event.text] == ["drill with mini passed"]


# -- a component that does not work --------------------------------------------------------------------------


def break_the_tail(mini: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the holder pushes is not written on mini any more."""
    monkeypatch.setattr("instar_node.wiring.drills.WITHIN_S", 1.0)
    monkeypatch.setattr("instar_node.verification.drill.AGAIN_S", 0.0)
    follower = mini._parts.tail.transport.follower
    monkeypatch.setattr(follower, "_write", _lose)


async def _lose(pushes: object) -> None:
    """Nothing is written and nothing acknowledged."""


async def refused(call: object) -> InstarError:
    with pytest.raises(InstarError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_a_drill_that_fails_names_the_component_shuts_its_gate_and_says_so_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (desk, mini):
        break_the_tail(mini, monkeypatch)
        result = await desk.api.verify(t.VerifyRequest("mini"))
        (drill,) = result.drills
        assert not result.passed
        assert (drill.failed, drill.live) == ("livetail", False)
        assert "acknowledged" in drill.finding
        assert (await desk.api.lease()).epoch == 1  # the role does not go where something is broken
        for node in (desk, mini):
            assert (await gates(node))["livetail"] == "shut"
            assert (await node.api.health()).gates["livetail"] == "shut"
            assert "gate-shut" in [alert.code for alert in (await node.api.health()).alerts]
        for call in (
            desk.api.handoff(t.HandoffRequest("mini")),
            mini.api.wakeup(t.WakeupRequest()),
            desk.api.transfer(t.TransferRequest("work", "mini")),
        ):
            error = await refused(call)
            assert (error.code, error.extra["gate"], error.status) == ("gate-shut", "livetail", 409)
            assert "acknowledged" in error.message
            assert "instar verify mini" in error.hint
        await until(lambda: mini.machine_id not in desk._parts.base.lease.ack_set())


async def test_a_person_may_open_a_shut_gate_and_leave_it_to_the_drills_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (desk, mini):
        with monkeypatch.context() as broken:
            break_the_tail(mini, broken)
            assert not (await desk.api.verify(t.VerifyRequest("mini"))).passed
        opened = await mini.api.set_flag(t.FlagChange("livetail", "open"))
        assert {gate.gate: gate.override for gate in opened.gates}["livetail"] == "open"
        for node in (desk, mini):
            assert (await gates(node))["livetail"] == "overridden"
        assert (await desk.api.transfer(t.TransferRequest("work", "mini"))).outcome == "moved"
        await desk.api.set_flag(t.FlagChange("livetail", "auto"))
        assert (await gates(desk))["livetail"] == "shut"
        assert (await desk.api.verify(t.VerifyRequest("mini", rehearse=True))).passed
        assert (await gates(mini))["livetail"] == "open"


async def test_a_gate_shut_by_hand_holds_whatever_the_drills_show(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, _):
        await desk.api.set_flag(t.FlagChange("handoff", "shut"))
        result = await desk.api.verify(t.VerifyRequest())
        assert not result.passed
        assert "shut by hand" in result.drills[0].finding
        assert (await desk.api.lease()).epoch == 1
        error = await refused(desk.api.set_flag(t.FlagChange("warp", "open")))
        assert (error.status, error.code) == (404, "unknown-gate")
        assert "handoff" in error.extra["known"]


async def test_results_and_decisions_survive_a_restart_and_count_for_the_versions_that_run(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.verify(t.VerifyRequest(rehearse=True))
        await desk.api.set_flag(t.FlagChange("transfer", "open"))
        homes = desk._home, mini._home
    async with running(homes[0]) as desk, running(homes[1]) as mini:
        await until(lambda: desk._parts.base.mesh.connected(mini.machine_id))
        states = await gates(desk)
        assert states.pop("transfer") == "overridden"
        assert set(states.values()) == {"open"}


async def test_what_cannot_be_drilled_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk")) as desk:
        assert (await refused(desk.api.verify(t.VerifyRequest()))).code == "no-peer"
        assert (await refused(desk.api.verify(t.VerifyRequest("nowhere")))).status == 404
        assert (await refused(desk.api.verify(t.VerifyRequest("desk")))).code == "bad-input"
        assert set((await gates(desk)).values()) == {"unverified"}
    async with running(a_home(tmp_path, "alone", more="[pool]\nenabled = false\n")) as alone:
        error = await refused(alone.api.e2e_results())
        assert (error.status, error.code) == (503, "pool-disabled")
