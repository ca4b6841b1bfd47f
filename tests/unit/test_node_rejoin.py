"""A home that holds a mesh of its own, alone and empty, may give it up for another; any other may not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from node_world import a_home, in_sync, join, lines, pair, running, until

from instar_node import joining
from instar_node.api import types as t
from instar_node.api.http_client import HttpNodeApi
from instar_node.build import Build
from instar_node.config import NodeOptions, load_config
from instar_node.errors import InstarError
from instar_node.known_secrets import KnownSecrets
from instar_node.node import Node
from instar_node.serving import serve
from instar_node.storage.home import Home


@asynccontextmanager
async def served(home: Home) -> AsyncIterator[list[Node]]:
    """The node of a home as the program runs it; the list holds each that came to be."""
    nodes: list[Node] = []
    ending = asyncio.Event()
    task = asyncio.create_task(
        serve(
            home, load_config(home.config), NodeOptions(), KnownSecrets(), ready=nodes.append, ending=ending
        )
    )
    await until(lambda: nodes or task.done())
    try:
        yield nodes
    finally:
        ending.set()
        await task


async def code_of(host: Node, sas: bool = False) -> tuple[str, str]:
    view = await host.api.pair(t.PairRequest(sas=sas))
    assert view.url is not None
    assert view.code is not None
    return view.url, view.code


def wrong(code: str) -> str:
    return code[:-4] + f"{(int(code[-4:]) + 1) % 10_000:04d}"


async def founded(home: Home) -> str:
    """Start a node on a fresh home once, as somebody who looks around; the id of the mesh it founds."""
    async with running(home) as node:
        mesh_id = (await node.api.whoami()).mesh_id
        assert mesh_id is not None
        return mesh_id


async def test_who_looked_around_first_may_still_join(tmp_path: Path) -> None:
    home = a_home(tmp_path, "mini")
    first = await founded(home)
    (home.state / "note.md").write_text("mine")
    async with running(a_home(tmp_path, "desk"), hub=str(tmp_path / "hub.git")) as desk:
        joined = await join(desk, home)
        assert joined.mesh_id != first
        assert not home.hub.exists(), "nothing is left of the mesh that was given up"
        assert not home.database.exists()
        assert (tmp_path / "mini" / "state.before-1" / "note.md").read_text() == "mine"
        async with running(home) as mini:
            await in_sync(desk, mini)
            assert (await mini.api.whoami()).mesh_id == joined.mesh_id


async def test_a_running_node_joins_and_goes_on_as_a_standby_at_the_same_address(tmp_path: Path) -> None:
    home = a_home(tmp_path, "mini")
    async with running(a_home(tmp_path, "desk")) as desk, served(home) as nodes:
        client = HttpNodeApi(home)
        before = nodes[0].api_url
        url, code = await code_of(desk)
        joined = await client.join(t.JoinRequest(url=url, code=code, nickname="attic"))
        await until(lambda: len(nodes) == 2)
        await in_sync(desk, nodes[1])
        assert nodes[1].api_url == before
        me = await client.whoami()
        assert (me.mesh_id, me.nickname, me.role) == (joined.mesh_id, "attic", "standby")
        await client.send(t.SendRequest("work", "hello", key="k1"))
        await until(lambda: _answered(desk))
        await client.close()


async def _answered(node: Node) -> bool:
    return ("agent", "hello") in await lines(node, "work") or len(await lines(node, "work")) == 2


async def test_a_join_that_fails_leaves_the_running_node_as_it_was(tmp_path: Path) -> None:
    home = a_home(tmp_path, "mini")
    async with running(a_home(tmp_path, "desk")) as desk, served(home) as nodes:
        (mini,) = nodes
        mesh_id = (await mini.api.whoami()).mesh_id
        url, code = await code_of(desk)
        with pytest.raises(InstarError) as refused:
            await mini.api.join(t.JoinRequest(url=url, code=wrong(code)))
        assert (refused.value.code, refused.value.extra["attempts_left"]) == ("wrong-code", 2)
        with pytest.raises(InstarError) as unreachable:
            await mini.api.join(t.JoinRequest(url="http://127.0.0.1:1", code=code))
        assert unreachable.value.code == "host-unreachable"
        assert nodes == [mini]
        assert (await mini.api.whoami()).mesh_id == mesh_id
        assert len((await desk.api.machines()).machines) == 1
        assert (await mini.api.pair(t.PairRequest())).state == "open"
        await mini.api.join(t.JoinRequest(url=url, code=code))  # and with the right code it works
        await until(lambda: len(nodes) == 2)


async def test_while_a_node_joins_it_takes_nothing_in_and_mints_no_code(tmp_path: Path) -> None:
    home = a_home(tmp_path, "mini")
    async with running(a_home(tmp_path, "desk")) as desk, served(home) as nodes:
        (mini,) = nodes
        url, code = await code_of(desk, sas=True)
        under_way = asyncio.create_task(mini.api.join(t.JoinRequest(url=url, code=code)))

        async def both_ask() -> bool:
            return (await mini.api.pair_view()).state == (await desk.api.pair_view()).state == "confirming"

        await until(both_ask)
        for call in (mini.api.pair(t.PairRequest()), mini.api.join(t.JoinRequest(url=url, code=code))):
            with pytest.raises(InstarError) as refused:
                await call
            assert refused.value.code == "joining"
        sending = asyncio.create_task(mini.api.send(t.SendRequest("work", "too early", key="k1")))
        assert (await mini.api.pair_view()).sas == (await desk.api.pair_view()).sas
        await desk.api.pair_confirm(t.PairConfirm(accept=True))
        await mini.api.pair_confirm(t.PairConfirm(accept=True))
        await under_way
        await until(lambda: len(nodes) == 2)
        assert (await asyncio.gather(sending, return_exceptions=True))[0].__class__ is InstarError
        await in_sync(desk, nodes[1])
        assert (await nodes[1].api.topics()).topics == []


async def test_a_no_on_the_running_node_admits_nobody(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk")) as desk, served(a_home(tmp_path, "mini")) as nodes:
        (mini,) = nodes
        url, code = await code_of(desk, sas=True)
        under_way = asyncio.create_task(mini.api.join(t.JoinRequest(url=url, code=code)))
        await until(lambda: _confirming(mini))
        await mini.api.pair_confirm(t.PairConfirm(accept=False))
        with pytest.raises(InstarError, match="declined here"):
            await under_way
        assert len((await desk.api.machines()).machines) == 1
        assert nodes == [mini]


async def _confirming(node: Node) -> bool:
    return (await node.api.pair_view()).state == "confirming"


async def test_a_mesh_that_is_not_empty_or_not_alone_is_kept(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk")) as desk:
        url, code = await code_of(desk)
        body = t.JoinRequest(url=url, code=code)
        talks, keeps = a_home(tmp_path, "talks"), a_home(tmp_path, "keeps")
        async with running(talks) as node:
            await node.api.send(t.SendRequest("work", "hello", key="k1"))
            await _refused(node.api.join(body), "holds 1 message")
        async with running(keeps) as node:
            await node.api.set_secret("TOKEN", t.SecretValue("some value"))
            await _refused(node.api.join(body), "holds secrets of a mesh of its own: TOKEN")
        for home, why in ((talks, "holds 1 message"), (keeps, "holds secrets")):
            await _refused(joining.join_home(home, url, code, None), why)
        async with pair(tmp_path / "others") as (one, two):
            await _refused(one.api.join(body), "with mini")
            await _refused(two.api.join(body), "with desk")
            await one.api.remove_machine("mini")
            await until(lambda: two._parts.base.registry.get(two.machine_id).removed)
            await _refused(two.api.join(body), "needs a new identity")
        assert (await desk.api.pair_view()).attempts_left == 3, "no attempt was made"


async def _refused(call: object, why: str) -> None:
    with pytest.raises(InstarError, match=why) as refused:
        await call  # type: ignore[misc]
    assert (refused.value.code, refused.value.status) == ("already-member", 409)
    assert "fresh home" in refused.value.hint


async def test_a_join_cut_off_after_its_one_step_is_finished_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = a_home(tmp_path, "mini")
    await founded(home)
    async with running(a_home(tmp_path, "desk")) as desk:
        for broken in ("_give_up", "write_mesh_file"):
            with monkeypatch.context() as patch:
                patch.setattr(f"instar_node.wiring.mesh_change.{broken}", _crash)
                with pytest.raises(KeyboardInterrupt):
                    await _open(home) if (home.machine / "joined.json").exists() else await join(desk, home)
        async with running(home) as mini:
            await in_sync(desk, mini)
            assert not (home.machine / "joined.json").exists()


async def _open(home: Home) -> None:
    async with running(home):
        pass


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


async def test_a_join_cut_off_before_its_one_step_has_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = a_home(tmp_path, "mini")
    mesh_id = await founded(home)
    async with running(a_home(tmp_path, "desk")) as desk:
        with monkeypatch.context() as patch:
            patch.setattr(joining, "commit_join", _crash)
            with pytest.raises(KeyboardInterrupt):
                await join(desk, home)
        async with running(home) as mini:
            assert (await mini.api.whoami()).mesh_id == mesh_id


async def test_versions_that_cannot_work_together_are_said_so_before_anybody_is_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = a_home(tmp_path, "mini")
    async with running(a_home(tmp_path, "desk"), hub=str(tmp_path / "hub.git")) as desk:
        with monkeypatch.context() as patch:
            patch.setattr(joining, "this_build", lambda: Build("9.9", (7, 9)))
            with pytest.raises(InstarError) as refused:
                await join(desk, home)
        assert refused.value.code == "versions-apart"
        assert "update instar-tui" in refused.value.hint
        assert len((await desk.api.machines()).machines) == 1
        assert (await desk.api.lease()).benched == []
        assert not (home.machine / "registry.json").exists()
        await join(desk, home)


async def test_keys_and_settings_are_the_machines_own_and_stay(tmp_path: Path) -> None:
    home = a_home(tmp_path, "mini")
    await founded(home)
    kept = [home.machine / "signing.key", home.machine / "encryption.key", home.config]
    before = [path.read_bytes() for path in kept]
    async with running(a_home(tmp_path, "desk")) as desk:
        await join(desk, home)
    assert [path.read_bytes() for path in kept] == before
