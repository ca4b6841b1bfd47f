"""Two whole nodes: what is asked on one machine is done by the one that is awake, and both tell the truth."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar_node.api import types as t
from instar_node.api.forwarding import ApiAnswer, ApiCall
from instar_node.contracts import PeerError
from instar_node.errors import InstarError
from instar_node.joining import join_home
from instar_node.node import Node
from tests.unit.node_world import a_home, in_sync, join, lines, pair, running, until


async def said(node: Node, topic: str, count: int) -> list[tuple[str, str]]:
    """The conversation, once this node knows of so many lines."""

    async def enough() -> bool:
        return len(await lines(node, topic)) >= count

    await until(enough)
    return await lines(node, topic)


# -- messages ------------------------------------------------------------------------------------------------


async def test_a_message_given_to_a_standby_is_answered_once_and_known_to_both(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        sent = await mini.api.send(t.SendRequest("work", "hello"))
        assert sent.handled_by == desk.machine_id
        assert sent.key
        for node in (desk, mini):
            assert await said(node, "work", 2) == [("user", "hello"), ("agent", "hello")]
        first = (await desk.api.messages("work")).messages[0]
        assert (first.key, first.machine_id, first.machine) == (sent.key, mini.machine_id, "mini")


async def test_one_key_is_one_message_wherever_it_arrives(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        first = await mini.api.send(t.SendRequest("work", "hello", "k1"))
        again = await desk.api.send(t.SendRequest("work", "hello", "k1"))
        assert (first.duplicate, again.duplicate, again.seq) == (False, True, first.seq)
        with pytest.raises(InstarError) as refused:
            await mini.api.send(t.SendRequest("work", "other", "k1"))
        assert (refused.value.code, refused.value.status) == ("key-reused", 409)


async def test_a_person_answers_on_the_standby(tmp_path: Path) -> None:
    async with pair(tmp_path, agent="manual") as (_, mini):
        sent = await mini.api.send(t.SendRequest("work", "hello"))
        await mini.api.reply("work", t.ReplyRequest(sent.key, "hi yourself"))
        assert await said(mini, "work", 2) == [("user", "hello"), ("agent", "hi yourself")]


async def test_messages_sent_through_a_handoff_are_all_taken_once(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):

        async def talk(node: Node, count: int) -> None:
            for n in range(count):
                await node.api.send(t.SendRequest("work", f"{node.machine_id} {n}"))

        talking = asyncio.gather(talk(desk, 40), talk(mini, 40))
        for to in ("mini", "desk"):
            await asyncio.sleep(0.05)
            result = await desk.api.handoff(t.HandoffRequest(to))
            assert result.outcome == "awake", result.reason
        await talking
        rows = await said(desk, "work", 160)
        wanted = {f"{node.machine_id} {n}" for node in (desk, mini) for n in range(40)}
        for role in ("user", "agent"):
            texts = [text for who, text in rows if who == role]
            assert len(texts) == 80
            assert set(texts) == wanted


async def test_what_nobody_was_shown_counts_as_unread(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.send(t.SendRequest("work", "hello"))

        async def unread(node: Node) -> int:
            return sum(row.unread for row in (await node.api.topics()).topics)

        async def both_new() -> bool:
            return await unread(mini) == 2

        await until(both_new)
        await mini.api.messages("work")
        assert await unread(mini) == 0


# -- one hop -------------------------------------------------------------------------------------------------


async def ask(sender: Node, receiver: Node, method: str, **arguments: Any) -> ApiAnswer:
    """Send a forwarded call as another node would."""
    call = ApiCall(method, msgspec.json.encode(arguments))
    return await sender._parts.base.mesh.request(receiver.machine_id, call, ApiAnswer, within=5)


async def test_a_wish_passed_to_a_standby_goes_no_further(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        with pytest.raises(PeerError) as refused:
            await ask(desk, mini, "send", body=t.SendRequest("work", "hello", "k1"))
        assert refused.value.code == "not-awake"
        assert await lines(desk, "work") == []


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("pair", {"body": t.PairRequest()}),
        ("wakeup", {"body": t.WakeupRequest()}),
        ("send", {"body": {"topic": "no topic", "text": "x"}}),
        ("send", {"body": {"topic": "work", "text": "x", "extra": 1}}),
        ("send", {}),
        ("rename", {"machine": "desk", "body": {"nickname": ""}}),
        ("rename", {"machine": "", "body": {"nickname": "a"}}),
    ],
)
async def test_a_member_cannot_ask_for_more_than_the_local_api_takes(
    tmp_path: Path, method: str, arguments: dict[str, Any]
) -> None:
    async with pair(tmp_path, hub=False) as (desk, mini):
        with pytest.raises(PeerError) as refused:
            await ask(mini, desk, method, **arguments)
        assert (refused.value.code, refused.value.detail["status"]) == ("bad-input", 400)


async def test_a_refusal_of_the_holder_arrives_whole(tmp_path: Path) -> None:
    async with pair(tmp_path) as (_, mini):
        with pytest.raises(InstarError) as refused:
            await mini.api.transfer(t.TransferRequest("work", "nobody"))
        error = refused.value
        assert (error.code, error.status, error.extra["known"]) == ("unknown-machine", 404, ["desk", "mini"])
        assert "desk" in error.hint


async def test_an_unreachable_holder_is_a_502_that_names_it(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[1]) as mini_before:
        del mini_before  # only its home is needed below; it founds a mesh that is left behind
    home = a_home(tmp_path, "attic")
    async with running(homes[0]) as desk:
        await join(desk, home)
    async with running(home) as attic:
        with pytest.raises(InstarError) as refused:
            await attic.api.rename("attic", t.RenameRequest("roof"))
        assert (refused.value.code, refused.value.status) == ("holder-unreachable", 502)
        assert "desk" in refused.value.message
        alerts = [alert.code for alert in (await attic.api.health()).alerts]
        assert "holder-unreachable" in alerts


# -- the same picture on both --------------------------------------------------------------------------------


async def test_both_machines_tell_the_same_of_roles_lease_and_topics(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await mini.api.send(t.SendRequest("work", "hello"))
        await said(mini, "work", 2)
        pictures = [await node.api.status() for node in (desk, mini)]
        for picture in pictures:
            roles = {row.nickname: (row.role, row.status, row.online) for row in picture.machines}
            assert roles == {"desk": ("awake", "ok", True), "mini": ("standby", "ok", True)}
            assert picture.lease.holder_nickname == "desk"
            assert sorted(picture.lease.electorate) == sorted([desk.machine_id, mini.machine_id])
            assert picture.lease.valid_for_ms > 0
            assert picture.lease.if_lost.next == mini.machine_id
            assert [(row.topic, row.owner_nickname) for row in picture.topics] == [("work", "desk")]
            assert [row.is_self for row in picture.machines] == [
                row.machine_id == picture.me.machine_id for row in picture.machines
            ]
        assert [picture.lease.state for picture in pictures] == ["held", "observed"]
        assert [picture.livetail.role for picture in pictures] == ["source", "standby"]


async def test_a_standby_knows_how_far_every_copy_is(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.send(t.SendRequest("work", "hello"))

        async def level(node: Node) -> bool:
            peers = (await node.api.livetail()).peers
            return [(p.nickname, p.acked_seq, p.head_seq) for p in peers] == [("mini", 2, 2)]

        for node in (desk, mini):
            await until(lambda node=node: level(node))
        own = next(row for row in (await mini.api.machines()).machines if row.is_self)
        assert own.lag is not None
        assert own.lag.entries == 0


async def test_a_new_name_reaches_every_machine(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        renamed = await mini.api.rename("MINI", t.RenameRequest("attic"))
        assert (renamed.nickname, renamed.is_self) == ("attic", True)
        for node in (desk, mini):

            async def known(node: Node = node) -> bool:
                return "attic" in [row.nickname for row in (await node.api.machines()).machines]

            await until(known)


async def test_a_placement_is_read_by_whoever_asks(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        moved = await mini.api.transfer(t.TransferRequest("work", "here"))
        assert (moved.outcome, moved.owner) == ("moved", mini.machine_id)
        views = [await node.api.placement("work") for node in (desk, mini)]
        assert [view.is_this_machine for view in views] == [False, True]
        assert {view.pinned_to for view in views} == {mini.machine_id}
        unpinned = await mini.api.unpin(t.UnpinRequest("work"))
        assert unpinned.pin_state == "none"
        assert unpinned.is_this_machine == (unpinned.owner == mini.machine_id)


async def test_an_answer_names_the_machine_on_which_it_was_made_also_after_a_handoff(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.transfer(t.TransferRequest("work", "mini"))
        await desk.api.send(t.SendRequest("work", "one"))
        await said(desk, "work", 2)
        await mini.api.wakeup(t.WakeupRequest())
        await desk.api.transfer(t.TransferRequest("home", "desk"))
        await mini.api.send(t.SendRequest("home", "two"))
        for node in (desk, mini):
            for topic in ("work", "home"):
                await said(node, topic, 2)
            made = [(await node.api.messages(topic)).messages[1].machine for topic in ("work", "home")]
            assert made == ["mini", "desk"]


async def test_a_standby_hears_of_what_happens_through_its_own_events(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        kinds: set[str] = set()

        async def listen() -> None:
            async for event in mini.api.events():
                kinds.add(event.kind)

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await desk.api.send(t.SendRequest("work", "hello"))
        await desk.api.rename("desk", t.RenameRequest("study"))
        await desk.api.handoff(t.HandoffRequest("mini"))
        await until(lambda: {"message", "livetail", "machines", "lease", "handoff", "pulse"} <= kinds)
        listening.cancel()


# -- roles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", [True, False])
async def test_the_awake_role_goes_there_and_back(tmp_path: Path, hub: bool) -> None:
    async with pair(tmp_path, hub) as (desk, mini):
        there = await mini.api.wakeup(t.WakeupRequest())
        assert (there.outcome, there.holder, there.epoch) == ("awake", mini.machine_id, 2)
        assert [step.step for step in there.steps][-1] == "committed"
        again = await mini.api.wakeup(t.WakeupRequest())
        assert again.outcome == "already-awake"
        back = await mini.api.handoff(t.HandoffRequest("desk"))
        assert (back.outcome, back.holder) == ("awake", desk.machine_id)
        await mini.api.send(t.SendRequest("work", "hello"))
        assert await said(mini, "work", 2) == [("user", "hello"), ("agent", "hello")]


async def test_a_handoff_asked_for_on_a_standby_is_done_by_the_holder(tmp_path: Path) -> None:
    async with pair(tmp_path) as (_, mini):
        result = await mini.api.handoff(t.HandoffRequest("mini"))
        assert (result.outcome, result.holder) == ("awake", mini.machine_id)


async def test_a_machine_too_slow_to_take_the_lease_is_named_and_the_role_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (desk, mini):
        lease, swapping = mini._parts.base.lease, asyncio.Event()
        send = lease.traffic.send

        async def slow(effect: Any) -> None:
            await swapping.wait()
            await send(effect)

        monkeypatch.setattr(lease.traffic, "send", slow)
        result = await desk.api.handoff(t.HandoffRequest("mini"))
        assert (result.outcome, result.holder) == ("aborted", desk.machine_id)
        assert result.reason == "mini did not take the lease in time, so this machine took it back"
        history = (await desk.api.lease()).history
        assert [(row.epoch, row.reason) for row in history] == [(2, "took back"), (1, "founded")]
        swapping.set()  # its swap comes too late, and harms nobody
        await in_sync(desk, mini)
        assert (await desk.api.handoff(t.HandoffRequest("mini"))).outcome == "awake"


async def test_a_stopping_node_hands_its_role_to_the_machine_in_sync(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hand_off=True, hub=str(tmp_path / "hub.git")) as desk:
        await join(desk, homes[1])
        mini = await _start(homes[1])
        await in_sync(desk, mini)
    try:
        lease = await mini.api.lease()
        assert (lease.holder, lease.history[0].reason) == (mini.machine_id, "handoff")
    finally:
        await mini.stop(hand_off=False)


async def _start(home: Any) -> Node:
    from instar_node.config import NodeOptions, load_config

    node = await Node.open(home, load_config(home.config), NodeOptions())
    await node.start()
    return node


# -- membership ----------------------------------------------------------------------------------------------


async def test_a_code_is_minted_only_where_it_works_and_the_refusal_names_that_machine(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (_, mini):
        with pytest.raises(InstarError) as refused:
            await mini.api.pair(t.PairRequest())
        assert refused.value.code == "not-awake"
        assert "desk" in refused.value.message + refused.value.hint


async def test_a_code_is_void_as_soon_as_another_machine_is_awake(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        view = await desk.api.pair(t.PairRequest())
        assert view.url is not None
        assert view.code is not None
        await mini.api.wakeup(t.WakeupRequest())

        async def void() -> bool:
            return (await desk.api.pair_view()).state == "cancelled"

        await until(void)
        after = await desk.api.pair_view()
        assert after.code is None
        assert after.last_refusal == "mini is the awake machine now"
        with pytest.raises(InstarError) as refused:
            await join_home(a_home(tmp_path, "laptop"), view.url, view.code, None)
        assert refused.value.code == "code-consumed"
        assert len((await mini.api.machines()).machines) == 2


async def test_a_joiner_is_a_standby_and_its_home_takes_no_second_mesh(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk")) as desk:
        home = a_home(tmp_path, "mini")
        joined = await join(desk, home)
        me = await desk.api.whoami()
        assert (joined.mesh_id, joined.peer["machine_id"]) == (me.mesh_id, desk.machine_id)
        assert (await desk.api.pair_view()).sas == joined.sas
        rows = {row.nickname: row.role for row in (await desk.api.machines()).machines}
        assert rows == {"desk": "awake", "mini": "standby"}
        with pytest.raises(InstarError) as refused:
            await join(desk, home)
        assert refused.value.code == "already-member"


async def test_a_joiner_that_cannot_use_the_hub_leaves_no_trace_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(a_home(tmp_path, "desk"), hub=str(tmp_path / "hub.git")) as desk:
        home = a_home(tmp_path, "mini")
        hidden = tmp_path / "hidden.git"
        monkeypatch.setattr("instar_node.joining.parse_hub", lambda url, home: _elsewhere(str(hidden)))
        with pytest.raises(InstarError) as refused:
            await join(desk, home)
        assert refused.value.code == "hub-missing"
        assert str(hidden) in refused.value.message
        assert len((await desk.api.machines()).machines) == 1
        assert (await desk.api.lease()).benched == []
        assert (await desk.api.pair_view()).state == "cancelled"
        for name in ("registry.json", "mesh.json", "lease-state.json"):
            assert not (home.machine / name).exists()
        monkeypatch.undo()
        await join(desk, home)


def _elsewhere(url: str) -> Any:
    from instar_node.coordination.hub import Hub

    return Hub("path", url)


async def test_a_removed_machine_is_out_of_registry_and_lease_and_knows_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.transfer(t.TransferRequest("work", "mini"))
        await desk.api.remove_machine("mini")
        lease = await desk.api.lease()
        assert lease.electorate + lease.benched == [desk.machine_id]
        assert [row.nickname for row in (await desk.api.machines()).machines] == ["desk"]
        assert (await desk.api.placement("work")).pinned_to is None

        async def knows() -> bool:
            return (await mini.api.health()).role == "removed"

        await until(knows)
        for call in (
            mini.api.wakeup(t.WakeupRequest()),
            mini.api.send(t.SendRequest("work", "x")),
            mini.api.pair(t.PairRequest()),
        ):
            with pytest.raises(InstarError) as refused:
                await call
            assert refused.value.status == 403
        with pytest.raises(InstarError) as refused:
            await desk.api.remove_machine("desk")
        assert refused.value.code == "is-awake"


async def test_a_machine_that_leaves_is_taken_out_of_the_lease(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        with pytest.raises(InstarError) as refused:
            await desk.api.leave()
        assert refused.value.code == "is-awake"
        await mini.api.leave()

        async def gone() -> bool:
            lease = await desk.api.lease()
            return lease.electorate + lease.benched == [desk.machine_id]

        await until(gone)
        assert (await mini.api.whoami()).role == "removed"


async def test_a_machine_in_the_lease_that_nobody_admitted_is_taken_out_again(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk")) as desk:
        lease = desk._parts.base.lease
        await lease.admit("m_" + "0" * 32)  # as a crash between the two writes of an admission leaves it

        async def alone() -> bool:
            view = await desk.api.lease()
            return view.benched == []

        await until(alone)


async def test_a_standby_that_is_away_is_shown_and_the_node_says_it_is_degraded(tmp_path: Path) -> None:
    homes = [a_home(tmp_path, name) for name in ("desk", "mini")]
    async with running(homes[0], hub=str(tmp_path / "hub.git")) as desk:
        await join(desk, homes[1])
        async with running(homes[1]) as mini:
            await in_sync(desk, mini)

        async def shown() -> bool:
            health = await desk.api.health()
            codes = [alert.code for alert in health.alerts]
            return codes == ["benched"] and health.status == "degraded"

        await until(shown)
        row = next(row for row in (await desk.api.machines()).machines if row.nickname == "mini")
        assert (row.status, row.online, row.electorate) == ("offline", False, False)
