"""One node on one home: founded, opened again, refused with a reason, closed in any state."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.config import Config, NodeOptions, load_config
from instar_node.errors import InstarError
from instar_node.node import Node
from instar_node.storage.home import Home
from tests.unit.node_world import a_home, join, lines, running, until

ANY_PORT = NodeOptions(listen="127.0.0.1:0")


async def refusal_of(home: Home, options: NodeOptions = ANY_PORT) -> InstarError:
    """Why a node on this home does not run; the home is free again afterwards."""
    with pytest.raises(InstarError) as refused:
        await _open_and_start(home, options)
    return refused.value


async def _open_and_start(home: Home, options: NodeOptions) -> None:
    node = await Node.open(home, load_config(home.config), options)
    try:
        await node.start()
    finally:
        await node.stop()


async def test_a_fresh_home_founds_a_mesh_and_is_awake_at_epoch_1(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk")) as node:
        lease, me = await node.api.lease(), await node.api.whoami()
        assert (lease.epoch, lease.holder, lease.state) == (1, node.machine_id, "held")
        assert (me.nickname, me.role) == ("desk", "awake")
        assert me.mesh_id is not None
        health = await node.api.health()
        assert health.status == "ok"
        assert [alert.code for alert in health.alerts] == ["no-failover"]


async def test_a_lone_machine_answers_and_remembers_after_a_restart(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    async with running(home) as node:
        await node.api.send(t.SendRequest("work", "hello"))
        await until(lambda: _answered(node))
    async with running(home) as node:
        assert await lines(node, "work") == [("user", "hello"), ("agent", "hello")]
        await until(lambda: _awake(node))
        assert (await node.api.lease()).epoch == 2


async def _answered(node: Node) -> bool:
    return len(await lines(node, "work")) == 2


async def _awake(node: Node) -> bool:
    return (await node.api.health()).role == "awake"


async def test_a_second_node_on_the_home_is_refused_naming_the_pid(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    async with running(home):
        refused = await refusal_of(home)
    assert refused.code == "already-running"
    assert f"pid {os.getpid()}" in refused.message


@pytest.mark.parametrize(
    "name", ["machine/signing.key", "machine/registry.json", "machine/mesh.json", "machine/lease-state.json"]
)
async def test_a_damaged_file_is_named_with_a_way_out(tmp_path: Path, name: str) -> None:
    home = a_home(tmp_path, "desk")
    async with running(home):
        pass
    (home.path / name).write_bytes(b"\x00 no such thing")
    refused = await refusal_of(home)
    assert str(home.path / name) in refused.message
    assert refused.hint


async def test_a_damaged_database_is_named_with_a_way_out(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    home.database.write_bytes(os.urandom(8_192))
    refused = await refusal_of(home)
    assert refused.code == "database-damaged"
    assert str(home.database) in refused.message


async def test_a_hub_that_cannot_serve_leaves_no_mesh_behind(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    refused = await refusal_of(home, NodeOptions(hub=str(tmp_path / "no" / "such" / "hub.git")))
    assert refused.code == "hub-missing"
    async with running(home, hub=str(tmp_path / "hub.git")) as node:
        assert (await node.api.lease()).hub.kind == "path"


async def test_the_hub_of_another_mesh_is_refused(tmp_path: Path) -> None:
    hub = str(tmp_path / "hub.git")
    async with running(a_home(tmp_path, "desk"), hub=hub):
        home = a_home(tmp_path, "stranger")
        refused = await refusal_of(home, NodeOptions(hub=hub))
    assert refused.code == "hub-of-another-mesh"
    assert not (home.machine / "registry.json").exists()


async def test_a_mesh_keeps_its_hub_and_a_different_wish_is_a_warning(tmp_path: Path) -> None:
    home, hub = a_home(tmp_path, "desk"), str(tmp_path / "hub.git")
    async with running(home, hub=hub):
        pass
    async with running(home, hub=hub) as node:
        assert "hub-differs" not in [alert.code for alert in (await node.api.health()).alerts]
    async with running(home, hub=str(tmp_path / "other.git")) as node:
        assert (await node.api.lease()).hub.url == hub
        assert "hub-differs" in [alert.code for alert in (await node.api.health()).alerts]
    assert not (tmp_path / "other.git").exists()


@pytest.mark.parametrize("hub", ["", "hub.git"])
async def test_a_lost_lease_state_is_read_from_the_register_again(tmp_path: Path, hub: str) -> None:
    home, options = a_home(tmp_path, "desk"), {"hub": str(tmp_path / hub)} if hub else {}
    for epoch in (1, 2):
        async with running(home, **options) as node:
            await until(lambda node=node: _awake(node))
            assert (await node.api.lease()).epoch == epoch
    (home.machine / "lease-state.json").unlink()
    async with running(home, **options) as node:
        await until(lambda: _awake(node))
        assert (await node.api.lease()).epoch == 3


async def test_a_taken_default_port_moves_on_and_a_wanted_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        home = a_home(tmp_path, "desk")
        refused = await refusal_of(home, NodeOptions(listen=address))
        assert refused.code == "port-in-use"
        monkeypatch.setattr("instar_node.wiring.foundation.DEFAULT_LISTEN", address)
        home.config.write_text(f'[node]\nlisten = "{address}"\n', encoding="utf-8")
        async with running(home) as node:
            health, me = await node.api.health(), await node.api.whoami()
            assert "port-moved" in [alert.code for alert in health.alerts]
            assert health.status == "ok"
            assert me.urls != [f"http://{address}"]


async def test_a_machine_that_moved_is_followed_by_the_others(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0]) as desk:
        await join(desk, homes[1])
        async with running(homes[1], listen="127.0.0.1:0") as mini:
            (url,) = (await mini.api.whoami()).urls

            async def followed() -> bool:
                known = desk._parts.base.registry.get(mini.machine_id)
                return known is not None and known.urls == (url,)

            await until(followed)


async def test_an_address_of_this_host_alone_is_written_into_no_record(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    async with running(home) as node:
        assert (await node.api.whoami()).urls[0].startswith("http://127.0.0.1:")
        assert (await node.api.pair(t.PairRequest())).warning, "and pair says what to do about it"
        assert b"127.0.0.1" not in (home.machine / "registry.json").read_bytes()


async def test_a_name_asked_for_again_leaves_a_rename_alone_and_a_new_one_counts(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    async with running(home) as node:
        renamed = await node.api.rename("desk", t.RenameRequest("study"))
        assert renamed.nickname == "study"
    async with running(home, nickname="desk") as node:
        await until(lambda: _awake(node))
        assert (await node.api.whoami()).nickname == "study"
    async with running(home, nickname="attic") as node:

        async def renamed_to_attic() -> bool:
            return (await node.api.whoami()).nickname == "attic"

        await until(renamed_to_attic)


async def test_a_node_that_was_never_started_frees_its_home(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    node = await Node.open(home, Config(), ANY_PORT)
    await node.stop()
    async with running(home):
        pass


async def test_a_lone_witness_founds_nothing(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    refused = await refusal_of(home, NodeOptions(witness=True))
    assert refused.code == "witness-alone"
    assert not (home.machine / "registry.json").exists()


async def test_a_witness_joins_and_is_never_part_of_the_lease(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk"), hub=str(tmp_path / "hub.git")) as desk:
        home = a_home(tmp_path, "nas")
        text = home.config.read_text(encoding="utf-8").replace("[node]", "[node]\nwitness = true")
        home.config.write_text(text, encoding="utf-8")
        await join(desk, home)
        async with running(home) as nas:
            rows = {row.nickname: row.role for row in (await desk.api.machines()).machines}
            assert rows == {"desk": "awake", "nas": "witness"}
            lease = await desk.api.lease()
            assert lease.electorate == [desk.machine_id]
            assert lease.benched == []
            with pytest.raises(InstarError) as refused:
                await nas.api.wakeup(t.WakeupRequest())
            assert refused.value.code == "witness"


async def test_a_stopped_node_takes_its_address_file_away(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk")
    async with running(home) as node:
        assert home.api_json.exists()
        assert node.api_url.startswith("http://127.0.0.1:")
    assert not home.api_json.exists()


async def test_a_pool_that_is_switched_off_answers_503_and_messages_still_run(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk", more="[pool]\nenabled = false\n")) as node:
        for call in (node.api.pool(), node.api.placement("work"), node.api.unpin(t.UnpinRequest("work"))):
            with pytest.raises(InstarError) as refused:
                await call
            assert (refused.value.code, refused.value.status) == ("pool-disabled", 503)
        await node.api.send(t.SendRequest("work", "hello"))
        await until(lambda: _answered(node))
        row = (await node.api.topics()).topics[0]
        assert (row.owner, row.reason) == (node.machine_id, "placed")
