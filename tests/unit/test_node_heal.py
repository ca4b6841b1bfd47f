"""Two persons heal one split brain: the line that was chosen first goes on, whoever hears of it how late."""

from __future__ import annotations

from pathlib import Path

import pygit2
import pytest

from instar_node.api import types as t
from instar_node.coordination.git_lease_store import LEASE_REF
from instar_node.coordination.lease_store import StoreUnavailable
from instar_node.coordination.record import KnownRecord
from instar_node.errors import InstarError
from instar_node.node import Node
from tests.unit.node_world import pair, until


async def rewound(hub: Path, desk: Node, mini: Node) -> None:
    """The hub shows an older record, and both machines have seen it."""
    register = pygit2.Repository(str(hub))
    old = register.references[LEASE_REF].target
    await mini.api.wakeup(t.WakeupRequest())
    register.references.create(LEASE_REF, old, force=True)
    await until(lambda: all(node._parts.base.lease.lease.durable.evidence for node in (desk, mini)))


async def test_a_split_brain_that_somebody_has_healed_is_not_healed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (desk, mini):
        await rewound(tmp_path / "hub.git", desk, mini)
        lease = mini._parts.base.lease
        learn, tip = lease.learn, lease.tip
        hears = False

        def learn_if_told(seen: KnownRecord) -> None:
            if hears:
                learn(seen)

        async def look() -> str | None:
            nonlocal hears
            hears = True
            try:
                return await tip()
            finally:
                hears = False

        with monkeypatch.context() as deaf:  # the news of the healing is late; only the hub shows it
            deaf.setattr(lease, "learn", learn_if_told)
            deaf.setattr(lease.coordinator, "on_read", lambda *_: None)
            deaf.setattr(lease, "tip", look)
            await desk.api.lease_heal(t.HealRequest(confirm=True))
            assert desk._parts.base.lease.acting_epoch() == 1_000_000
            with pytest.raises(InstarError) as refused:
                await mini.api.lease_heal(t.HealRequest(confirm=True))
        assert refused.value.code == "nothing-to-heal"
        assert "desk" in refused.value.message
        assert lease.lease.durable.evidence is None
        await until(lambda: lease.holder == desk.machine_id and lease.epoch == 1_000_000)
        assert desk._parts.base.lease.acting_epoch() == 1_000_000


async def test_the_lines_of_a_split_brain_are_told_with_names(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await rewound(tmp_path / "hub.git", desk, mini)
        told = (await desk.api.health()).split_brain
        assert told is not None
        older = told["seen"][0]
        assert (older["holder_nickname"], older["reason"]) == ("desk", "in sync mini")


async def test_a_healing_that_the_hub_does_not_take_leaves_the_split_brain_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (desk, mini):
        await rewound(tmp_path / "hub.git", desk, mini)
        lease = desk._parts.base.lease
        seen = lease.lease.durable.evidence

        async def away(*_: object) -> None:
            raise StoreUnavailable("the hub is away")

        with monkeypatch.context() as broken:
            broken.setattr(lease.hubs.store(lease.hub), "prepare", away)
            with pytest.raises(InstarError):
                await desk.api.lease_heal(t.HealRequest(confirm=True))
        assert lease.lease.durable.evidence == seen
        await desk.api.lease_heal(t.HealRequest(confirm=True))
        assert lease.acting_epoch() == 1_000_000


async def test_a_folder_in_the_place_of_the_lease_is_named_with_what_to_do_and_then_healed(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (desk, _):
        place = tmp_path / "hub.git" / LEASE_REF
        place.unlink()
        place.mkdir()
        (place / "note").write_text("hello")

        async def alarm() -> str:
            alerts = (await desk.api.health()).alerts
            return next((alert.message for alert in alerts if alert.code == "hub-replaced"), "")

        async def told() -> bool:
            return f"the folder {place}" in await alarm()

        await until(told)
        assert "remove it there by hand" in await alarm()
        assert (await desk.api.health()).role == "awake"
        findings = (await desk.api.doctor()).findings
        assert [f.state for f in findings if str(place) in f.message] == ["problem"]
        with pytest.raises(InstarError, match=str(place)) as refused:
            await desk.api.lease_heal(t.HealRequest(confirm=True))
        assert refused.value.code == "hub-blocked"
        assert "by hand" in refused.value.hint
        assert (await desk.api.health()).role == "awake", "a healing that cannot be written changes nothing"
        (place / "note").unlink()
        place.rmdir()
        await desk.api.lease_heal(t.HealRequest(confirm=True))
        assert desk._parts.base.lease.acting_epoch() == 1_000_000

        async def well() -> bool:
            return await alarm() == ""

        await until(well)
