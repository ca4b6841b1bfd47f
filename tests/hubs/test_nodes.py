"""Whole nodes on real hubs: failover, what is written there, and hubs that will not do, at every door."""

from __future__ import annotations

import secrets
from pathlib import Path

import pygit2
import pytest

from instar_node.api import types as t
from instar_node.coordination.git_repository import LeaseRepository
from instar_node.coordination.record import LeaseRecord
from instar_node.errors import InstarError
from instar_node.node import Node
from instar_node.storage.home import Home
from tests.hubs.conftest import GitServer
from tests.unit.node_world import LEASE, a_home, in_sync, join, running, until

FRESH = ("registry.json", "mesh.json", "lease-state.json")


@pytest.fixture(params=["http", "etcd"])
def shared(request: pytest.FixtureRequest) -> str:
    """The URL of an empty hub on a real server."""
    name = secrets.token_hex(4)
    if request.param == "etcd":
        return f"{request.getfixturevalue('etcd')}/{name}"
    web: GitServer = request.getfixturevalue("web")
    pygit2.init_repository(str(web.root / f"{name}.git"), bare=True)
    return f"{web.url}/git/{name}.git"


async def test_nodes_on_a_server_pair_take_over_and_move_away(shared: str, tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk"), hub=shared) as desk:
        home = a_home(tmp_path, "mini")
        await join(desk, home)
        async with running(home) as mini:
            await in_sync(desk, mini)
            await desk.stop(hand_off=False)

            async def awake() -> bool:
                return (await mini.api.health()).role == "awake"

            await until(awake)
            moved = await mini.api.move_hub(t.HubRequest(str(tmp_path / "hub.git")))
            assert moved.kind == "path"
            back = await mini.api.move_hub(t.HubRequest(shared))
            assert (back.url, back.epoch) == (shared, moved.epoch + 1)


# -- what is written to the hub ------------------------------------------------------------------------


def record_of(hub: Path) -> LeaseRecord:
    """What the register of a path hub holds. Its serial counts every record that was ever written."""
    repository = LeaseRepository(hub)
    while True:
        tip = repository.tip("refs/instar/lease")
        known = repository.record_at(tip) if tip is not None else None
        if known is not None:  # else a renewal replaced it between the two looks
            return known.record


async def rounds(node: Node, count: int) -> None:
    """Wait until so many promise rounds of a holder have been answered."""
    lease = node._parts.base.lease.lease

    def newest() -> int:
        return max(lease.promised.values(), default=0)

    for _ in range(count):
        before = newest()
        await until(lambda before=before: newest() > before)  # type: ignore[misc]


def patient(home: Home) -> Home:
    """With a lease that a busy computer cannot lapse: whoever is benched here is really gone."""
    settings = home.config.read_text()
    home.config.write_text(settings.replace(LEASE, "[lease]\nttl_ms = 6000\nround_ms = 500\n"))
    return home


async def test_the_hub_is_written_once_for_a_peer_lost_and_returned_and_never_in_between(
    tmp_path: Path,
) -> None:
    hub = tmp_path / "hub.git"
    homes = [patient(a_home(tmp_path, name)) for name in ("desk", "mini")]
    async with running(homes[0], hub=str(hub)) as desk:
        await join(desk, homes[1])
        async with running(homes[1]) as mini:
            await in_sync(desk, mini)
            steady = record_of(hub)
            for n in range(6):
                await desk.api.send(t.SendRequest("42", f"message {n}"))
                await rounds(desk, 1)
            assert record_of(hub) == steady
        await until(lambda: record_of(hub).serial > steady.serial)
        lost = record_of(hub)
        assert (lost.serial, lost.benched) == (steady.serial + 1, (mini.machine_id,))
        async with running(homes[1]) as mini:
            await in_sync(desk, mini)
            back = record_of(hub)
            assert (back.serial, back.benched) == (lost.serial + 1, ())
            await rounds(desk, 4)
            assert record_of(hub) == back


async def test_checkpoints_are_written_while_somebody_is_benched(tmp_path: Path) -> None:
    hub = tmp_path / "hub.git"
    async with running(a_home(tmp_path, "desk"), hub=str(hub)) as desk:
        await join(desk, a_home(tmp_path, "mini"))
        admitted = record_of(hub)
        await until(lambda: record_of(hub).serial > admitted.serial)
        assert record_of(hub).reason == "checkpoint"


# -- hubs that will not do, beside those of test_refused_hubs.py -------------------------------------------


@pytest.fixture
def bad_urls(web: GitServer, tmp_path: Path) -> dict[str, tuple[str, str]]:
    """What is wrong -> the URL, and the code it is refused with."""
    if not (web.root / "locked.git").exists():
        pygit2.init_repository(str(web.root / "locked.git"), bare=True)
    (tmp_path / "Dropbox").mkdir()
    return {
        "http: wrong password": (
            f"{web.url}/locked/locked.git".replace("://", "://ada:no@"),
            "hub-credentials",
        ),
        "http: no server": ("http://127.0.0.1:9/hub.git", "hub-unreachable"),
        "etcd: no server": ("etcd://127.0.0.1:9", "hub-unreachable"),
        "etcd: a web server": (web.url.replace("http://", "etcd://"), "hub-not-etcd"),
        "path: missing disk": (str(tmp_path / "mnt" / "hub.git"), "hub-missing"),
        "path: synced": (str(tmp_path / "Dropbox" / "hub.git"), "hub-synced"),
        "nonsense": ("hub dot git", "bad-hub"),
    }


WRONG = (
    "http: wrong password", "http: no server", "etcd: no server", "etcd: a web server",
    "path: missing disk", "path: synced", "nonsense",
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
async def test_no_mesh_is_founded_on_a_hub_that_will_not_do(
    wrong: str, bad_urls: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    url, code = bad_urls[wrong]
    home = a_home(tmp_path, "desk")
    with pytest.raises(InstarError) as caught:
        async with running(home, hub=url):
            pass
    assert caught.value.code == code
    assert ":no@" not in caught.value.message
    assert not [name for name in FRESH if (home.machine / name).exists()]
    async with running(home):
        pass  # the home is as good as new


async def test_no_lease_moves_to_a_hub_that_will_not_do(
    bad_urls: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    async with running(a_home(tmp_path, "desk"), hub=str(tmp_path / "hub.git")) as desk:
        before = await desk.api.lease()
        for wrong, (url, code) in bad_urls.items():
            with pytest.raises(InstarError) as caught:
                await desk.api.move_hub(t.HubRequest(url))
            assert (wrong, caught.value.code) == (wrong, code)
        after = await desk.api.lease()
        assert (after.epoch, after.hub.url, after.is_self) == (before.epoch, before.hub.url, True)
