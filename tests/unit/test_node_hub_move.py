"""Two whole nodes whose lease moves from hub to hub while they run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.coordination import hub_move
from instar_node.coordination.git_lease_store import GitLeaseStore
from instar_node.coordination.lease_store import LeaseStore, StoreUnavailable
from instar_node.coordination.record import HubPlace
from instar_node.errors import InstarError
from instar_node.joining import join_home
from instar_node.node import Node
from tests.unit.node_world import a_home, in_sync, join, pair, running, until


async def move(node: Node, url: str) -> t.HubMoved:
    return await node.api.move_hub(t.HubRequest(url))


async def knows(node: Node, url: str) -> None:
    """Wait until a node's lease lies at ``url`` and its hub answers."""

    async def there() -> bool:
        view = await node.api.lease()
        return view.hub.url == url and view.hub.reachable and view.state in ("held", "observed")

    await until(there)


async def takes_over(dead: Node, survivor: Node) -> None:
    """The holder falls silent for good; the other one is awake in time."""
    await dead.stop(hand_off=False)

    async def awake() -> bool:
        return (await survivor.api.health()).role == "awake"

    await until(awake)


async def test_an_embedded_mesh_moves_to_a_path_and_gains_failover(tmp_path: Path) -> None:
    async with pair(tmp_path, hub=False) as (desk, mini):
        hub = str(tmp_path / "shared.git")
        before = (await desk.api.lease()).epoch
        moved = await move(desk, hub)
        assert (moved.outcome, moved.kind, moved.url, moved.unreachable) == ("moved", "path", hub, [])
        assert moved.epoch == before + 1
        view = await desk.api.lease()
        assert (view.is_self, view.history[0].reason) == (True, "hub moved")
        await knows(mini, hub)
        await in_sync(desk, mini)
        await takes_over(desk, mini)


async def test_a_mesh_moves_from_path_to_path_and_back_and_to_the_own_disk(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        first, second = str(tmp_path / "hub.git"), str(tmp_path / "other.git")
        for url in (second, first):
            assert (await move(desk, url)).url == url
            await knows(mini, url)
        moved = await move(desk, "embedded")
        assert moved.kind == "embedded"
        view = await desk.api.lease()
        assert (view.is_self, view.expires) == (True, False)
        await in_sync(desk, mini)
        handed = await desk.api.handoff(t.HandoffRequest("mini"))
        assert (handed.outcome, handed.holder) == ("awake", mini.machine_id)
        again = await move(mini, second)
        assert again.epoch > handed.epoch
        await knows(desk, second)


async def test_messages_sent_throughout_a_move_are_answered_once(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        keys = [f"k{n}" for n in range(40)]

        async def talk() -> None:
            for key in keys:
                await mini.api.send(t.SendRequest("42", f"say {key}", key))

        talking = asyncio.create_task(talk())
        await move(desk, str(tmp_path / "other.git"))
        await move(desk, "embedded")
        await talking

        async def answered() -> bool:
            rows = (await desk.api.messages("42", 0, 1_000)).messages
            replies = sorted(str(row.reply_to) for row in rows if row.role == "agent")
            return replies == sorted(keys)

        await until(answered)


async def test_a_machine_that_was_away_follows_when_it_is_back(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    old, new = str(tmp_path / "hub.git"), str(tmp_path / "other.git")
    async with running(homes[0], hub=old) as desk:
        await join(desk, homes[1])
        async with running(homes[1]) as mini:
            await in_sync(desk, mini)
        moved = await move(desk, new)
        assert [trouble.nickname for trouble in moved.unreachable] == ["mini"]
        assert (await desk.api.lease()).electorate == [desk.machine_id]
        (tmp_path / "hub.git").rename(tmp_path / "gone.git")
        async with running(homes[1]) as mini:
            await knows(mini, new)
            await in_sync(desk, mini)
    async with running(homes[1]) as mini:
        assert (await mini.api.lease()).hub.url == new
        assert not [alert for alert in (await mini.api.health()).alerts if alert.code == "hub-differs"]


async def test_a_machine_that_cannot_use_the_new_hub_is_benched_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path, hub=False) as (desk, mini):
        heard: list[str] = []
        mini._parts.base.events.listen(lambda event: heard.append(event.text))
        benched: list[tuple[str, ...]] = []
        lease = desk._parts.base.lease
        lease.on_change(lambda: benched.append(lease.known.record.benched if lease.known else ()))
        real = mini._parts.base.lease.hubs.at

        async def nothing_mounted(place: object) -> object:
            raise StoreUnavailable("there is no repository; is its disk mounted?", "hub-missing")

        monkeypatch.setattr(mini._parts.base.lease.hubs, "at", nothing_mounted)
        moved = await move(desk, str(tmp_path / "shared.git"))
        (trouble,) = moved.unreachable
        assert (trouble.nickname, "mounted" in trouble.why) == ("mini", True)
        assert any("this machine cannot use" in text for text in heard)
        assert (mini.machine_id,) in benched
        monkeypatch.setattr(mini._parts.base.lease.hubs, "at", real)
        await in_sync(desk, mini)


async def test_a_standby_passes_the_wish_on_and_the_same_hub_again_is_no_move(tmp_path: Path) -> None:
    async with pair(tmp_path) as (_, mini):
        url = str(tmp_path / "other.git")
        assert (await move(mini, url)).outcome == "moved"
        assert (await move(mini, url)).outcome == "already-there"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("nonsense", "bad-hub"),
        ("{folder}/missing/hub.git", "hub-missing"),
        ("{folder}/music", "hub-not-repository"),
        ("{folder}/Dropbox/hub.git", "hub-synced"),
        ("{folder}/foreign.git", "hub-of-another-mesh"),
        ("http://127.0.0.1:9/hub.git", "hub-unreachable"),
        ("witness:mini", "no-witness"),
        ("etcd://127.0.0.1:9", "hub-unreachable"),
    ],
)
async def test_a_hub_that_will_not_do_is_refused_before_anything_changes(
    tmp_path: Path, url: str, code: str
) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song").touch()
    (tmp_path / "Dropbox").mkdir()
    if "foreign" in url:
        async with running(a_home(tmp_path, "stranger"), hub=str(tmp_path / "foreign.git")):
            pass
    async with running(a_home(tmp_path, "desk"), hub=str(tmp_path / "hub.git")) as desk:
        before = await desk.api.lease()
        with pytest.raises(InstarError) as caught:
            await move(desk, url.format(folder=tmp_path))
        assert caught.value.code == code
        after = await desk.api.lease()
        assert (after.epoch, after.is_self, after.hub.url) == (before.epoch, True, before.hub.url)


async def test_a_mover_that_dies_half_way_leaves_the_rest_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (desk, mini):
        new = str(tmp_path / "new.git")
        lease = desk._parts.base.lease
        real = lease.hubs.at

        async def cut_off(place: HubPlace | None) -> LeaseStore:
            if place is not None and place.url == new:
                raise StoreUnavailable("the new disk is gone again")
            return await real(place)

        monkeypatch.setattr(lease.hubs, "at", cut_off)
        monkeypatch.setattr(hub_move, "FINISH_S", 0.5)
        with pytest.raises(InstarError) as caught:
            await move(desk, new)
        assert caught.value.code in ("hub-move-unfinished", "hub-move-overtaken")
        assert (await desk.api.health()).role == "standby"
        await takes_over(desk, mini)
        assert (await mini.api.lease()).hub.url == new

        async def noted() -> bool:
            return (await mini.api.lease()).history[0].reason == "hub moved"

        await until(noted)


async def test_a_machine_joins_a_mesh_that_lies_on_a_witness(tmp_path: Path) -> None:
    homes = {name: a_home(tmp_path, name) for name in ("desk", "nas", "mini")}
    async with running(homes["desk"]) as desk:
        view = await desk.api.pair(t.PairRequest())
        assert view.url is not None
        assert view.code is not None
        await join_home(homes["nas"], view.url, view.code, None, witness=True)
        async with running(homes["nas"]) as nas:
            await until(lambda: desk._parts.base.mesh.connected(nas.machine_id))
            moved = await move(desk, "witness:nas")
            assert (moved.kind, moved.url) == ("witness", "witness:nas")
            await join(desk, homes["mini"])
            async with running(homes["mini"]) as mini:
                await in_sync(desk, mini)
                await knows(mini, "witness:nas")
                await takes_over(desk, mini)


async def test_a_dead_hub_is_left_by_force_and_every_machine_follows(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        new = str(tmp_path / "new.git")
        by_force = t.HubRequest(new, force=True)
        with pytest.raises(InstarError) as alive:
            await desk.api.move_hub(by_force)
        assert alive.value.code == "hub-reachable"
        (tmp_path / "hub.git").rename(tmp_path / "burnt.git")
        with pytest.raises(InstarError):
            await move(desk, new)

        async def away() -> bool:
            return not (await desk.api.lease()).hub.reachable

        await until(away)
        with pytest.raises(InstarError) as unhealed:
            await desk.api.lease_heal(t.HealRequest(confirm=True))
        assert ("does not answer" in unhealed.value.message, "--force" in unhealed.value.hint) == (True, True)
        moved = await desk.api.move_hub(by_force)
        assert (moved.outcome, moved.epoch, moved.unreachable) == ("moved", 1_000_000, [])
        assert (await desk.api.lease()).is_self
        await knows(mini, new)
        await in_sync(desk, mini)
        (tmp_path / "burnt.git").rename(tmp_path / "hub.git")
        await takes_over(desk, mini)


async def test_by_force_every_machine_that_is_away_must_be_vouched_for(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        (tmp_path / "hub.git").rename(tmp_path / "burnt.git")
        await desk.stop(hand_off=False)
        await until(lambda: not mini._parts.base.mesh.connected(desk.machine_id))
        new = str(tmp_path / "new.git")
        with pytest.raises(InstarError) as asked:
            await mini.api.move_hub(t.HubRequest(new, force=True))
        assert (asked.value.code, asked.value.extra["vouch"]) == ("needs-confirmation", [desk.machine_id])
        moved = await mini.api.move_hub(t.HubRequest(new, force=True, vouch=[desk.machine_id]))
        assert [trouble.nickname for trouble in moved.unreachable] == ["desk"]
        assert (await mini.api.lease()).is_self


async def test_a_defect_in_reading_the_register_does_not_end_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[None] = []

    async def broken(store: GitLeaseStore) -> None:
        reads.append(None)
        raise RuntimeError("a defect")

    async with running(a_home(tmp_path, "desk"), hub=str(tmp_path / "hub.git")):
        monkeypatch.setattr(GitLeaseStore, "read", broken)
        await until(lambda: len(reads) >= 2)
