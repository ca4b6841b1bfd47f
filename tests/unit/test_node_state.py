"""The shared state between whole nodes: edits here appear there, once, whoever is awake."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pygit2
import pytest

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_node.handoff.times import HandoffTimes
from instar_node.node import Node
from instar_node.wiring.state_hub import STATE_REF
from instar_node.wiring.state_lease import LeaseOfState
from tests.unit.node_world import a_home, in_sync, join, pair, running, until


def has(path: Path, text: str) -> Callable[[], bool]:
    return lambda: path.is_file() and path.read_text() == text


async def settled(*nodes: Node) -> None:
    """All have the same newest state, and nothing waits anywhere."""

    async def equal() -> bool:
        views = [await node.api.sync() for node in nodes]
        return len({view.head for view in views}) == 1 and all(view.state == "in-sync" for view in views)

    await until(equal)


async def test_an_edit_of_the_awake_machine_appears_on_the_standby(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        here, there = tmp_path / "desk" / "state", tmp_path / "mini" / "state"
        (here / "notes").mkdir()
        (here / "notes" / "plan ü.md").write_text("the plan\n")
        await until(has(there / "notes" / "plan ü.md", "the plan\n"))
        await settled(desk, mini)
        assert (await desk.api.sync()).writes
        view = await mini.api.sync()
        assert (view.writes, view.signed_by, view.refused) == (False, desk.machine_id, [])


async def test_an_edit_of_a_standby_is_queued_and_arrives_once(tmp_path: Path) -> None:
    async with pair(tmp_path, hub=False) as (desk, mini):
        here, there = tmp_path / "desk" / "state", tmp_path / "mini" / "state"
        await settled(desk, mini)
        (there / "MEMORY.md").write_text("from mini\n")
        await until(has(here / "MEMORY.md", "from mini\n"))
        await settled(desk, mini)
        assert sorted(os.listdir(here)) == sorted(os.listdir(there))


async def test_a_planted_commit_shows_in_health_and_sync_until_it_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.wiring.state_hub.DiskStateHub.audit_s", 0.1)
    async with pair(tmp_path) as (desk, mini):
        await settled(desk, mini)
        hub = pygit2.Repository(str(tmp_path / "hub.git"))
        person = pygit2.Signature("Mallory", "mallory@example.org", 1_700_000_000, 0)
        tip = hub.references[STATE_REF].target
        planted = hub.create_commit(None, person, person, "planted", hub[tip].tree_id, [tip])
        hub.references.create(STATE_REF, planted, force=True)

        async def told() -> bool:
            return any(alert.code == "state-refused" for alert in (await mini.api.health()).alerts)

        await until(told)
        health, view = await mini.api.health(), await mini.api.sync()
        assert (health.status, health.sync["refused_commits"]) == ("degraded", 1)
        assert [(row.commit, row.source) for row in view.refused] == [(str(planted), "the hub")]
        (tmp_path / "desk" / "state" / "a.md").write_text("on it goes\n")
        await until(has(tmp_path / "mini" / "state" / "a.md", "on it goes\n"))
        assert str(hub.references[STATE_REF].target) == (await desk.api.sync()).head
        assert (await mini.api.sync_seen()).refused == []
        assert not await told()


async def test_lease_records_vouch_for_the_state(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        (tmp_path / "desk" / "state" / "a.md").write_text("x\n")
        await until(has(tmp_path / "mini" / "state" / "a.md", "x\n"))
        await settled(desk, mini)
        head = (await desk.api.sync()).head
        await desk.api.remove_machine("mini")  # a swap of the record
        known = desk._parts.base.lease.known
        assert known is not None
        assert known.record.state_head == head


async def test_on_a_state_older_than_the_lease_vouches_for_nobody_is_admitted_and_nothing_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hub=str(tmp_path / "hub.git")) as desk:
        members = [row.machine_id for row in (await desk.api.machines()).machines]
        with monkeypatch.context() as taken_back:
            taken_back.setattr(LeaseOfState, "state_head", "f" * 40)
            with pytest.raises(InstarError) as unsealed:
                await desk.api.set_secret("TOKEN", t.SecretValue("some value"))
            with pytest.raises(InstarError) as refused:
                await join(desk, homes[1])
            assert unsealed.value.code == refused.value.code == "state-behind"
            assert (await desk.api.secrets()).names == []
            assert [row.machine_id for row in (await desk.api.machines()).machines] == members
            assert not (await desk.api.lease()).benched
        await join(desk, homes[1])
        await desk.api.set_secret("TOKEN", t.SecretValue("some value"))


async def test_nobody_takes_over_on_a_state_older_than_the_lease_vouches_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with AsyncExitStack() as standing:
        async with running(homes[0], hub=str(tmp_path / "hub.git")) as desk:
            await join(desk, homes[1])
            mini = await standing.enter_async_context(running(homes[1]))
            await in_sync(desk, mini)
            await settled(desk, mini)
            monkeypatch.setattr(LeaseOfState, "state_head", "f" * 40)
        lease = mini._parts.base.lease

        async def told() -> bool:
            return any(alert.code == "state-behind" for alert in (await mini.api.health()).alerts)

        await until(told)
        due = lease.lease.may_contend_at(0)
        assert isinstance(due, int)
        await until(lambda: mini._parts.base.clock.now() > due + lease.lease.timing.ttl)
        assert lease.acting_epoch() is None
        monkeypatch.undo()
        await until(lambda: lease.acting_epoch() == 2)
        await until(lambda: _is_well(mini))


async def test_a_handoff_to_a_machine_without_the_vouched_state_ends_before_the_baton_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.wiring.handoffs.HandoffTimes", lambda: HandoffTimes(tail_s=0.5))
    async with pair(tmp_path, hub=False) as (desk, mini):
        await settled(desk, mini)
        with monkeypatch.context() as taken_back:
            taken_back.setattr(LeaseOfState, "state_head", "f" * 40)
            kept = await desk.api.handoff(t.HandoffRequest("mini"))
        assert (kept.outcome, kept.holder) == ("aborted", desk.machine_id)
        assert "mini: this machine lacks state ffffffffffff" in kept.reason
        assert (await desk.api.handoff(t.HandoffRequest("mini"))).outcome == "awake"


async def _is_well(node: Node) -> bool:
    return not any(alert.code == "state-behind" for alert in (await node.api.health()).alerts)
