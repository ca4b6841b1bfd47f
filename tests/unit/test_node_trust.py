"""Who may do what, shown with whole nodes: private files, machines that go, machines that are out."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from node_world import a_home, in_sync, join, lines, pair, running, until

from instar_node.api import types as t
from instar_node.config import load_config
from instar_node.contracts import PeerError
from instar_node.errors import InstarError
from instar_node.identity.registry_sync import AskLeave, RegistryRecords
from instar_node.mesh.frames import TUNNEL_VERSION, Opening
from instar_node.mesh.noise import Handshake
from instar_node.node import Node
from instar_node.node_log import node_log
from instar_node.pairing.exchange import HostExchange


@pytest.fixture
def _loose_umask() -> Iterator[None]:
    """Nothing is taken away from the mode of a new file."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_loose_umask")
async def test_no_file_of_a_node_can_be_read_or_written_by_others_whatever_the_umask(tmp_path: Path) -> None:
    os.umask(0o077)
    home = a_home(tmp_path, "desk")
    os.umask(0)
    home.config.chmod(0o600)
    home.machine.rmdir()
    home.logs.rmdir()
    with node_log(home, load_config(home.config)):
        async with running(home) as node:
            await node.api.pair(t.PairRequest())
            await node.api.set_secret("TOKEN", t.SecretValue("some value"))
            await node.api.send(t.SendRequest("work", "hello", key="k1"))
            await until(lambda: _answered(node))
            exposed = [path for path in home.path.rglob("*") if _open_to_others(path)]
            named = {path.name for path in home.path.rglob("*")}
    assert {"pairing-session.json", "vault.json", "api.token", "api.json", "mesh.db", "node.jsonl"} <= named
    closed = [home.hub, home.state, home.state_repository]  # whose insides git makes as it likes
    assert [path for path in exposed if not any(folder in path.parents for folder in closed)] == []
    for folder in (home.path, home.machine, home.logs, *closed):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def _open_to_others(path: Path) -> bool:
    return not path.is_symlink() and bool(path.stat().st_mode & 0o077)


async def _answered(node: Node) -> bool:
    return any(role == "agent" for role, _ in await lines(node, "work"))


async def test_founder_and_admitter_may_leave_and_later_joins_work(tmp_path: Path) -> None:
    hub = str(tmp_path / "hub.git")
    homes = {name: a_home(tmp_path, name) for name in ("desk", "mini", "lap", "nas")}
    async with running(homes["desk"], hub=hub) as desk:
        await join(desk, homes["mini"])
        async with running(homes["mini"]) as mini:
            await in_sync(desk, mini)
            await mini.api.wakeup(t.WakeupRequest())
            await desk.api.leave()  # the founder
            await until(lambda: _members(mini) == ["mini"])
            await join(mini, homes["lap"])
            async with running(homes["lap"]) as lap:
                await in_sync(mini, lap)
                await lap.api.wakeup(t.WakeupRequest())
                await mini.api.leave()  # the one that admitted lap
                await until(lambda: _members(lap) == ["lap"])
                joined = await join(lap, homes["nas"])
                async with running(homes["nas"]) as nas:
                    await in_sync(lap, nas)
                    assert (await nas.api.whoami()).mesh_id == joined.mesh_id
                    await nas.api.send(t.SendRequest("work", "hello", key="k1"))
                    await until(lambda: _answered(nas))
                    assert sorted(_members(nas)) == ["lap", "nas"]


def _members(node: Node) -> list[str]:
    return [member.nickname for member in node._parts.base.registry.active()]


async def test_a_removed_machine_is_cut_off_at_once_and_learns_nothing_more(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        mesh = mini._parts.base.mesh
        await desk.api.set_secret("TOKEN", t.SecretValue("some value"))
        await desk.api.remove_machine("mini")
        await until(lambda: not mesh.connected(desk.machine_id))
        assert desk._parts.base.mesh.info(mini.machine_id) is None
        before = (await mini.api.messages("work")).messages
        await desk.api.send(t.SendRequest("work", "not for everybody", key="k1"))
        await until(lambda: _answered(desk))
        assert (await mini.api.messages("work")).messages == before
        with pytest.raises(PeerError, match="not connected"):
            await mesh.request(desk.machine_id, AskLeave(), RegistryRecords, within=1)
        view = await desk.api.pair(t.PairRequest())
        assert view.url is not None
        assert view.code is not None
        body = b'{"step":"start","version":1,"machine_id":"%s","commitment":"%s="}' % (
            mini.machine_id.encode(),
            b"A" * 43,
        )
        status, _ = await desk._pairing.handle(body, "127.0.0.1")
        assert status == 409, "its identity never comes back"
        assert (await desk.api.pair_view()).attempts_left == 3


async def test_a_removed_machine_that_does_not_know_it_is_refused_like_a_stranger(tmp_path: Path) -> None:
    """It was away while it was removed, so it still believes in its membership and dials."""
    async with pair(tmp_path) as (desk, mini):
        mini_home = mini._home
        await mini.stop(hand_off=False)
        await desk.api.remove_machine("mini")
        counters = desk._parts.base.mesh.counters
        refused = counters["handshakes_failed"]
        async with running(mini_home) as again:
            await until(lambda: counters["handshakes_failed"] >= refused + 2)
            assert not again._parts.base.mesh.connected(desk.machine_id)
            assert again._parts.base.lease.acting_epoch() is None
            with pytest.raises(InstarError):
                await again.api.wakeup(t.WakeupRequest())
            assert (await desk.api.lease()).is_self


async def test_a_machine_on_its_way_out_is_not_taken_into_the_lease_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        lease, seen = desk._parts.base.lease, list[bool]()

        def look() -> None:
            assert lease.known is not None
            record = lease.known.record
            seen.append(mini.machine_id in (*record.electorate, *record.benched))

        lease.on_change(look)
        removing = asyncio.create_task(desk.api.remove_machine("mini"))
        while not removing.done():
            desk._membership._look.set()
            await asyncio.sleep(0.01)
        await removing
        assert False in seen
        assert True not in seen[seen.index(False) :]


SLOW_LEASE = "[lease]\nttl_ms = 20000\nround_ms = 3000\nbench_ttl_ms = 200000\n"


async def test_flooding_the_doors_costs_no_key_exchange_no_memory_and_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: beyond the limits, what a stranger sends is refused before anything is computed."""
    exchanges, handshakes = _counting(monkeypatch, HostExchange), _counting(monkeypatch, Handshake)
    monkeypatch.setattr("node_world.LEASE", SLOW_LEASE)  # attackers and attacked share this one process
    async with pair(tmp_path) as (desk, mini):
        url, mesh = (await desk.api.pair(t.PairRequest())).url, desk._parts.base.mesh
        exchanges.clear()
        handshakes.clear()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20)) as session:
            statuses = await asyncio.gather(*(_knock(session, f"{url}/api/pair", n) for n in range(200)))
            refused = await asyncio.gather(*(_call(session, f"{url}/mesh/tunnel") for _ in range(200)))
        begun = statuses.count(200)
        assert 19 <= begun <= 20, "the one that mini joined with may count"
        assert statuses.count(429) == 200 - begun
        assert len(exchanges) == len(desk._pairing._runs) == begun
        assert sum(refused) == mesh.counters["handshakes_limited"] >= 100
        assert len(handshakes) == 200 - sum(refused)
        await until(lambda: not mesh._limits._pending)
        lease = await desk.api.lease()
        assert (lease.epoch, lease.is_self) == (1, True)
        assert mini.machine_id in lease.electorate
        assert (await desk.api.pair_view()).attempts_left == 3


def _counting(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[None]:
    """One item for each object of this class that is made from now on."""
    made: list[None] = []
    make = kind.__init__

    def counted(self: object, *arguments: object, **named: object) -> None:
        made.append(None)
        make(self, *arguments, **named)

    monkeypatch.setattr(kind, "__init__", counted)
    return made


async def _knock(session: aiohttp.ClientSession, url: str, n: int) -> int:
    start = b'{"step":"start","version":1,"machine_id":"m_%032x","commitment":"%s="}' % (n, b"A" * 43)
    async with session.post(url, data=start) as answer:
        return answer.status


async def _call(session: aiohttp.ClientSession, url: str) -> bool:
    """Begin a tunnel as a stranger; whether it was refused before the handshake."""
    try:
        socket = await session.ws_connect(url)
    except aiohttp.WSServerHandshakeError as refused:
        return refused.status == 429
    opening = Opening(TUNNEL_VERSION, "m_stranger", "m_whoever", bytes(48))
    await socket.send_bytes(msgspec.msgpack.encode(opening))
    answer = await socket.receive()
    await socket.close()
    return answer.type is aiohttp.WSMsgType.BINARY  # never: a stranger is not answered
