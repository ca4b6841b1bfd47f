"""Whole nodes of different versions: nothing is handed to, taken over by, or run on one that is held back."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.build import Build
from instar_node.errors import InstarError
from instar_node.node import Node
from tests.unit.node_world import a_home, in_sync, join, running, until

OLD, BRIDGE, NEW = Build("1.0", (1, 1)), Build("1.5", (1, 2)), Build("2.0", (2, 2))


async def _refused(call: object) -> InstarError:
    with pytest.raises(InstarError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def code_of(call: object) -> str:
    return (await _refused(call)).code


async def row(node: Node, other: Node) -> t.Machine:
    return next(m for m in (await node.api.machines()).machines if m.machine_id == other.machine_id)


async def test_a_machine_updated_apart_is_benched_and_held_back_in_every_view(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hub=str(tmp_path / "hub.git"), build=OLD) as desk:
        await join(desk, homes[1])
        async with running(homes[1], build=BRIDGE) as mini:
            await in_sync(desk, mini)  # 1.5 speaks both: all is well
            assert (await desk.api.updates()).held_back == []
        async with running(homes[1], build=NEW) as mini:
            await until(lambda: desk._parts.base.mesh.connected(mini.machine_id))
            await until(lambda: mini.machine_id not in desk._parts.base.lease.ack_set())
            why = "held back: version 2.0 speaks protocol 2, the awake machine's 1.0 speaks 1"
            for node in (desk, mini):
                seen = await row(node, mini)
                assert (seen.status, seen.status_text, seen.version) == ("held-back", why, "2.0")
                assert (await row(node, desk)).status != "held-back"
                updates = await node.api.updates()
                assert updates.held_back == [mini.machine_id]
                assert {m.machine_id: m.held_back for m in updates.machines}[mini.machine_id] == why
                status = await node.api.status()
                assert [a.message for a in status.health.alerts if a.code == "held-back"] == [
                    f"mini is {why}"
                ]
            assert await code_of(desk.api.handoff(t.HandoffRequest("mini"))) == "incompatible"
            assert await code_of(mini.api.wakeup(t.WakeupRequest())) == "incompatible"
            assert await code_of(desk.api.transfer(t.TransferRequest("42", "mini"))) == "incompatible"
            drill = (await desk.api.verify(t.VerifyRequest("mini"))).drills[0]
            assert (drill.passed, drill.failed) == (False, "updates")


async def test_what_an_absent_machine_ran_is_known_over_a_restart(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hub=str(tmp_path / "hub.git"), build=OLD) as desk:
        await join(desk, homes[1])
        async with running(homes[1], build=NEW) as mini:
            await until(lambda: desk._parts.base.mesh.connected(mini.machine_id))
    (homes[1].machine / "versions.json").write_text("{ damaged")
    async with running(homes[0], build=OLD) as desk:
        away = await row(desk, mini)
        assert (away.online, away.version, away.status) == (False, "2.0", "held-back")
        assert (await desk.api.updates()).held_back == [mini.machine_id]
        error = await _refused(desk.api.transfer(t.TransferRequest("42", "mini")))
        assert error.code == "incompatible"  # and not: queued until it is back
    async with running(homes[1], build=NEW) as mini:  # a damaged note keeps nobody from starting
        assert (await row(mini, mini)).version == "2.0"


async def test_an_incompatible_standby_never_takes_over_and_says_why(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hub=str(tmp_path / "hub.git"), build=OLD) as desk:
        await join(desk, homes[1])
        async with running(homes[1], build=OLD) as mini:
            await in_sync(desk, mini)
            # Compatible as it is, it would take over by itself.
            await until(lambda: mini._parts.base.lease.snapshot().contend_in_us is not None)
    async with running(homes[1], build=NEW) as mini:  # desk is gone
        lease = mini._parts.base.lease
        assert lease.snapshot().contend_in_us is None
        with pytest.raises(InstarError) as caught:
            await mini.api.wakeup(t.WakeupRequest())
        assert (caught.value.code, caught.value.extra["why"]) == ("cannot-take-over", "incompatible")
        assert "shares no protocol" in caught.value.message
        assert (await row(mini, mini)).status == "held-back"
        assert lease.epoch == 1


async def test_a_pin_to_a_machine_that_became_incompatible_waits_and_says_why(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hub=str(tmp_path / "hub.git"), build=OLD) as desk:
        await join(desk, homes[1])
        async with running(homes[1], build=OLD) as mini:
            await in_sync(desk, mini)
            await desk.api.transfer(t.TransferRequest("42", "mini"))
        async with running(homes[1], build=NEW) as mini:
            await until(lambda: desk._parts.base.mesh.connected(mini.machine_id))
            sent = await desk.api.send(t.SendRequest("42", "hello"))
            place = await desk.api.placement("42")
            assert (place.owner, place.pin_state) == (None, "pending")
            assert "held back" in str(place.pending_reason)
            rows = (await desk.api.messages("42")).messages
            assert [(one.key, one.role) for one in rows] == [(sent.key, "user")]
            await desk.api.unpin(t.UnpinRequest("42"))
            await until(lambda: _answered(desk))


async def _answered(node: Node) -> bool:
    return [one.role for one in (await node.api.messages("42")).messages] == ["user", "agent"]


async def test_results_of_other_versions_do_not_count(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hub=str(tmp_path / "hub.git"), build=OLD) as desk:
        await join(desk, homes[1])
        async with running(homes[1], build=OLD) as mini:
            await in_sync(desk, mini)
            assert (await desk.api.verify(t.VerifyRequest(rehearse=True))).passed
        async with running(homes[1], build=BRIDGE) as mini:
            await until(lambda: desk._parts.base.mesh.connected(mini.machine_id))
            gates = (await desk.api.flags()).gates
            assert {gate.state for gate in gates} == {"unverified"}
            assert "not with the versions running now" in gates[0].why
