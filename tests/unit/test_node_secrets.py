"""Secrets in running nodes: copied, handed to agents by name, and seen nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
from node_world import a_home, in_sync, join, lines, pair, running, until

from instar_node.api import types as t
from instar_node.config import NodeOptions, load_config
from instar_node.errors import InstarError
from instar_node.identity.secret_record import SecretRecord, read_record
from instar_node.node import Node
from instar_node.node_log import node_log

PLANTED = "p1anted-Valu3-that-nobody-may-see"


async def value_of(node: Node, name: str) -> str:
    try:
        return (await node.api.secret(name)).value
    except InstarError as error:
        return f"({error.code})"


async def test_a_secret_set_on_either_machine_is_known_to_both(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.set_secret("ONE", t.SecretValue("first value"))
        assert await value_of(mini, "ONE") == "first value", "done means copied"
        await mini.api.set_secret("TWO", t.SecretValue("second value"))
        assert await value_of(desk, "TWO") == "second value"
        listed = await mini.api.secrets()
        assert listed.names == ["ONE", "TWO"]
        assert listed.secrets[0].readers == ["desk", "mini"]
        await mini.api.remove_secret("ONE")
        await until(lambda: _names(mini) == ["TWO"])
        assert (await desk.api.secrets()).names == ["TWO"]


def _names(node: Node) -> list[str]:
    return node._parts.base.vault.names()


async def test_the_shared_state_holds_the_secret_sealed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await mini.api.set_secret("TOKEN", t.SecretValue(PLANTED))
        copy = tmp_path / "mini" / "state" / "secrets" / "TOKEN.json"
        await until(copy.exists, within=20)
        record = msgspec.json.decode(copy.read_bytes(), type=SecretRecord)
        assert record == desk._parts.base.vault.record("TOKEN")
        await desk.api.remove_secret("TOKEN")
        await until(lambda: read_record(copy.read_bytes()).removed, within=20)


async def test_a_secret_outlives_the_machine_that_kept_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.set_secret("TOKEN", t.SecretValue(PLANTED))
        await mini.api.wakeup(t.WakeupRequest())
        await mini.api.set_secret("OTHER", t.SecretValue("written by the next holder"))
        assert await value_of(desk, "OTHER") == "written by the next holder"
        assert await value_of(mini, "TOKEN") == PLANTED


async def test_who_was_away_finds_secrets_and_removals_in_the_state_when_their_writer_is_gone(
    tmp_path: Path,
) -> None:
    hub, homes = str(tmp_path / "hub.git"), [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hub=hub) as desk:
        await join(desk, homes[1])
        async with running(homes[1]) as mini:
            await in_sync(desk, mini)
            await desk.api.set_secret("OLD", t.SecretValue("to be removed"))
        await until(lambda: _benched(desk, mini.machine_id))
        await desk.api.set_secret("TOKEN", t.SecretValue(PLANTED))
        await desk.api.remove_secret("OLD")
        await until(lambda: _shared(desk, "TOKEN") and not _in_force(desk, "OLD"), within=20)
    async with running(homes[1]) as mini:
        await until(lambda: _names(mini) == ["TOKEN"])
        assert await value_of(mini, "TOKEN") == PLANTED
        await mini.api.wakeup(t.WakeupRequest(force=True, vouch=[desk.machine_id]))

        async def writes() -> bool:
            return (await mini.api.sync()).writes

        await until(writes)
        await until(lambda: _shared(mini, "TOKEN"))
        assert _names(mini) == ["TOKEN"]


async def _benched(node: Node, machine: str) -> bool:
    return machine in (await node.api.lease()).benched


def _shared(node: Node, name: str) -> bool:
    """Whether the state, as the hub has it, holds a value for this name."""
    state = node._parts.state
    return state.head == state.facts().published and _in_force(node, name)


def _in_force(node: Node, name: str) -> bool:
    copy = node._home.state / "secrets" / f"{name}.json"
    return copy.exists() and not read_record(copy.read_bytes()).removed


async def test_a_machine_that_joins_later_is_given_what_there_is(tmp_path: Path) -> None:
    desk_home, mini_home = a_home(tmp_path, "desk"), a_home(tmp_path, "mini")
    async with running(desk_home) as desk:
        await desk.api.set_secret("TOKEN", t.SecretValue(PLANTED))
        await join(desk, mini_home)
        async with running(mini_home) as mini:
            await in_sync(desk, mini)

            async def given() -> bool:
                return await value_of(mini, "TOKEN") == PLANTED

            await until(given)


async def test_a_removed_machine_is_shut_out_and_the_person_is_told_what_to_change(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.set_secret("TOKEN", t.SecretValue(PLANTED))
        told = await desk.api.remove_machine("mini")
        assert "could read TOKEN" in str(told.note)
        await until(lambda: _names(mini) == [])
        with pytest.raises(InstarError, match="removed"):
            await mini.api.secret("TOKEN")
        await until(lambda: desk._parts.base.vault.misfits() == [])
        (row,) = (await desk.api.secrets()).secrets
        assert (row.readers, row.exposed_to) == (["desk"], ["mini"])
        alerts = [alert for alert in (await desk.api.health()).alerts if alert.code == "secrets-exposed"]
        assert "mini, which is out, could read TOKEN" in alerts[0].message
        await desk.api.set_secret("TOKEN", t.SecretValue("a new value"))
        assert "secrets-exposed" not in [alert.code for alert in (await desk.api.health()).alerts]


async def test_a_machine_that_leaves_is_told_what_it_could_read(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.set_secret("TOKEN", t.SecretValue(PLANTED))
        assert "could read TOKEN" in str((await mini.api.leave()).note)
        await until(lambda: not (tmp_path / "mini" / "machine" / "vault.json").exists())
        await until(lambda: desk._parts.base.vault.misfits() == [])


AGENT = """
import os, sys, json
question = json.load(sys.stdin)
token = os.environ["TOKEN"]
assert token not in " ".join(sys.argv)
if "fail" in question["message"]["text"]:
    sys.exit("the token is " + token)
print("length", len(token), "value", token)
"""


def agent_settings(folder: Path) -> str:
    program = folder / "agent.py"
    program.write_text(AGENT)
    return f'command = ["{sys.executable}", "{program}"]\nenv_secrets = ["TOKEN"]\n'


async def test_an_agent_is_given_its_secrets_by_name_and_nothing_else_sees_them(tmp_path: Path) -> None:
    """The value is planted everywhere a person or an agent could put it; then every file is searched."""
    seen: list[str] = []
    more = agent_settings(tmp_path)
    homes = [a_home(tmp_path, name, more, agent="command") for name in ("desk", "mini")]
    with node_log(homes[0], load_config(homes[0].config)) as known:
        desk = await Node.open(homes[0], load_config(homes[0].config), NodeOptions(), known)
        desk._parts.base.events.listen(lambda event: seen.append(repr(event)))
        try:
            await desk.start()
            await join(desk, homes[1])
            async with running(homes[1]) as mini:
                mini._parts.base.events.listen(lambda event: seen.append(repr(event)))
                await in_sync(desk, mini)
                await desk.api.set_secret("TOKEN", t.SecretValue(PLANTED))
                await desk.api.send(t.SendRequest("work", f"is {PLANTED} right?", key="k1", sender="me"))
                await until(lambda: _answered(desk, "work"))
                await mini.api.send(t.SendRequest("work", "fail", key="k2"))
                await until(lambda: _abandoned(desk, "k2"), within=30)
                await mini.api.reply("work", t.ReplyRequest("k2", f"it was {PLANTED}"))
                answers = [text for role, text in await lines(desk, "work") if role == "agent"]
                assert answers[0] == f"length {len(PLANTED)} value [redacted:vault]"
                seen += [repr(await node.api.status()) for node in (desk, mini)]
                seen += [repr(await node.api.messages("work")) for node in (desk, mini)]
                await until(lambda: _tails_agree(desk, mini))
        finally:
            await desk.stop(hand_off=False)
    assert PLANTED not in "".join(seen)
    searched = [path for home in homes for path in home.path.rglob("*") if path.is_file()]
    assert {"node.jsonl", "mesh.db", "vault.json"} <= {path.name for path in searched}
    assert [str(path) for path in searched if PLANTED.encode() in path.read_bytes()] == []


async def test_a_value_in_the_name_of_a_file_of_the_state_is_shown_nowhere(tmp_path: Path) -> None:
    file, shown = f"{PLANTED}.md", "[redacted:vault]"
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    seen: list[str] = []

    async def told(node: Node, what: str) -> bool:
        seen.append(repr([await node.api.sync(), await node.api.doctor(), await node.api.status()]))
        return what in seen[-1]

    with node_log(homes[1], load_config(homes[1].config)) as known:
        async with running(homes[0], hub=str(tmp_path / "hub.git")) as desk:
            await join(desk, homes[1])
            mini = await Node.open(homes[1], load_config(homes[1].config), NodeOptions(), known)
            try:
                await mini.start()
                await in_sync(desk, mini)
                await desk.api.set_secret("TOKEN", t.SecretValue(PLANTED))
                for node in (desk, mini):
                    node._parts.base.events.listen(lambda event: seen.append(repr(event)))
                # out of the folder: not shared, and in the way of what desk writes
                (homes[1].state / PLANTED).symlink_to(tmp_path)
                await until(lambda: told(mini, f"SyncLeftOut(path='{shown}', "))
                (homes[0].state / PLANTED).mkdir()
                (homes[0].state / PLANTED / file).write_text("x")
                await until(lambda: told(mini, f"state/{shown}/{shown}.md is not up to date"))
                await until(lambda: told(mini, f"SyncLeftOut(path='{shown}/{shown}.md', "))
            finally:
                await mini.stop(hand_off=False)
    seen.append((homes[1].logs / "node.jsonl").read_text())
    assert PLANTED not in "".join(seen)


async def _answered(node: Node, topic: str) -> bool:
    return any(role == "agent" for role, _ in await lines(node, topic))


async def _abandoned(node: Node, key: str) -> bool:
    found = (await node.api.messages("work")).messages
    return any(line.key == key and line.state == "abandoned" for line in found)


async def _tails_agree(desk: Node, mini: Node) -> bool:
    return desk._parts.tail.buffer.head == mini._parts.tail.buffer.head


async def test_a_missing_secret_is_named_with_what_to_do(tmp_path: Path) -> None:
    home = a_home(tmp_path, "desk", agent_settings(tmp_path), agent="command")
    async with running(home) as desk:
        await desk.api.send(t.SendRequest("work", "hello", key="k1"))
        await until(lambda: _abandoned(desk, "k1"), within=30)
        found = await desk.api.messages("work")
        assert "TOKEN" in repr(desk._parts.base.events._history), found


async def test_the_route_of_a_value_asks_for_the_token_and_every_other_holds_names_only(
    tmp_path: Path,
) -> None:
    import aiohttp

    home = a_home(tmp_path, "desk")
    async with running(home) as desk, aiohttp.ClientSession() as session:
        await desk.api.set_secret("TOKEN", t.SecretValue(PLANTED))
        url, token = desk.api_url, home.api_token.read_text().strip()
        async with session.get(f"{url}/secrets/TOKEN") as answer:
            assert answer.status == 401
        headers = {"Authorization": f"Bearer {token}"}
        async with session.get(f"{url}/secrets/TOKEN", headers=headers) as answer:
            assert (await answer.json()) == {"name": "TOKEN", "value": PLANTED}
        for path in ("/secrets", "/status", "/health", "/metrics", "/openapi.json"):
            async with session.get(url + path, headers=headers) as answer:
                assert PLANTED not in await answer.text()
        for name, status in (("NO-DASH", 400), ("X" * 65, 400), ("UNKNOWN", 404)):
            async with session.get(f"{url}/secrets/{name}", headers=headers) as answer:
                assert answer.status == status
        async with session.put(f"{url}/secrets/N", headers=headers, json={"value": ""}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["field"] == "value"
