"""The pool of whole nodes where it meets other things: handoffs, drills, removed machines, bad input."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar_node.api import types as t
from instar_node.contracts import Placement
from instar_node.errors import InstarError
from instar_node.node import Node
from instar_node.wiring.placement_log import PlacementSeal
from tests.unit.node_world import a_home, in_sync, join, lines, pair, running, until


async def refused(call: Any) -> InstarError:
    with pytest.raises(InstarError) as caught:
        await call
    return caught.value


async def owner(node: Node, topic: str) -> str | None:
    return (await node.api.placement(topic)).owner


async def test_a_transfer_during_a_handoff_is_done_once_by_whoever_is_awake(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        for turn, to in enumerate((mini, desk, mini, desk)):
            topic = f"t{turn}"
            asked = [mini, desk][turn % 2]
            moved, handed = await asyncio.gather(
                asked.api.transfer(t.TransferRequest(topic, "mini")),
                desk.api.handoff(t.HandoffRequest(to.machine_id)),
                return_exceptions=True,
            )
            if getattr(handed, "outcome", handed) != "awake":  # the lease lapsed on a busy computer
                await until(lambda to=to: _is_handed_to(desk, to))
            if isinstance(moved, InstarError):  # said so, and then nothing was done
                assert moved.code in ("not-awake", "lease-lost", "holder-unreachable"), moved
                assert (await desk.api.placement(topic)).pinned_to is None
            else:
                for node in (desk, mini):
                    assert await owner(node, topic) == mini.machine_id


async def _is_handed_to(node: Node, target: Node) -> bool:
    try:
        outcome = (await node.api.handoff(t.HandoffRequest(target.machine_id))).outcome
    except InstarError:
        return False
    return outcome in ("awake", "already-awake")


async def test_a_burst_for_an_agent_that_answers_at_once_is_no_overload(tmp_path: Path) -> None:
    async with pair(tmp_path, hub=False) as (desk, _):
        topics = [f"t{number}" for number in range(64)]  # with a slot each they would fill this machine
        await asyncio.gather(*(desk.api.send(t.SendRequest(topic, "hello", topic)) for topic in topics))
        await until(lambda: _all_answered(desk, topics))
        assert {await owner(desk, topic) for topic in topics} == {desk.machine_id}


async def _all_answered(node: Node, topics: list[str]) -> bool:
    roles = [[role for role, _ in await lines(node, topic)] for topic in topics]
    return roles == [["user", "agent"]] * len(topics)


def held_agent(folder: Path) -> str:
    """Settings of an agent that notes its runs, and answers as soon as there is no file ``hold``."""
    script = (
        f'echo "$INSTAR_KEY" >> {folder}/runs; while [ -e {folder}/hold ]; do sleep 0.02; done; echo done'
    )
    return f"command = {json.dumps(['sh', '-c', script])}\n"


async def test_running_work_moves_with_its_topic_after_consent_and_is_answered_once(tmp_path: Path) -> None:
    agent, runs, hold = held_agent(tmp_path), tmp_path / "runs", tmp_path / "hold"
    homes = [a_home(tmp_path, name, agent, agent="command") for name in ("desk", "mini")]
    hold.touch()
    async with running(homes[0], hub=str(tmp_path / "hub.git")) as desk:
        await join(desk, homes[1])
        async with running(homes[1]) as mini:
            await in_sync(desk, mini)
            await desk.api.send(t.SendRequest("42", "work on this", "k1"))
            await until(lambda: runs.exists() and runs.read_text().split() == ["k1"])
            error = await refused(mini.api.transfer(t.TransferRequest("42", "mini")))
            assert (error.status, error.extra["conditions"]) == (409, ["running-work"])
            assert await owner(desk, "42") == desk.machine_id
            consent = t.TransferRequest("42", "mini", error.extra["confirm"])
            moved = await mini.api.transfer(consent)
            assert (moved.outcome, moved.owner) == ("moved", mini.machine_id)
            assert [step.step for step in moved.steps] == ["drained", "tail_synced", "moved"]
            await until(lambda: runs.read_text().split() == ["k1", "k1"])
            back = await refused(mini.api.transfer(t.TransferRequest("42", "desk", error.extra["confirm"])))
            assert back.code == "rate-limited"
            hold.unlink()
            await until(lambda: _answered(desk))
            answers = [row for row in (await desk.api.messages("42")).messages if row.role == "agent"]
            assert [(row.reply_to, row.machine_id) for row in answers] == [("k1", mini.machine_id)]


async def test_a_topic_stays_where_it_is_until_the_other_machine_has_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.pool.tail_first.TAIL_S", 0.2)
    async with pair(tmp_path) as (desk, mini):
        with monkeypatch.context() as broken:
            broken.setattr(mini._parts.tail.transport.follower, "_write", _lose)
            await desk.api.send(t.SendRequest("42", "hello"))
            await until(lambda: _answered(desk))
            error = await refused(desk.api.transfer(t.TransferRequest("42", "mini")))
            assert error.code == "tail-behind"
            assert (await desk.api.placement("42")).pinned_to is None


async def _lose(pushes: object) -> None:
    """What is pushed is not written."""


async def test_of_two_transfers_at_once_one_is_done_and_the_other_is_told_so(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        for turn in range(4):
            topic = f"t{turn}"
            both = await asyncio.gather(
                *(node.api.transfer(t.TransferRequest(topic, "mini")) for node in (desk, mini)),
                return_exceptions=True,
            )
            outcomes = sorted(str(getattr(one, "outcome", getattr(one, "code", one))) for one in both)
            assert outcomes in (["moved", "transfer-running"], ["moved", "noop"])
            assert await owner(desk, topic) == mini.machine_id


async def test_a_topic_is_moved_by_talking_from_where_the_person_is(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):

        async def answers(*wanted: str) -> bool:
            return [text for role, text in await lines(desk, "42") if role == "agent"] == [*wanted]

        await mini.api.send(t.SendRequest("42", "can you bring it here tomorrow?"))
        await until(lambda: answers("can you bring it here tomorrow?"))  # the echo agent got it
        await mini.api.send(t.SendRequest("42", "move it back here"))
        await until(lambda: answers("can you bring it here tomorrow?", "Moved to mini."))
        for node in (desk, mini):
            place = await node.api.placement("42")
            assert (place.owner, place.pinned_to) == (mini.machine_id, mini.machine_id)
        await desk.api.send(t.SendRequest("43", "run this on attic, please"))
        await desk.api.send(t.SendRequest("44", "/move attic"))
        await until(lambda: _said(desk, "43", "run this on attic, please"))
        await until(
            lambda: _said(desk, "44", "no machine that runs topics is called attic. known: desk, mini.")
        )


async def _said(node: Node, topic: str, text: str) -> bool:
    return [line for role, line in await lines(node, topic) if role == "agent"] == [text]


async def test_a_topic_that_waits_for_a_machine_is_moved_by_talking_to_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.transfer(t.TransferRequest("42", "mini"))
        gone = mini.machine_id
        await mini.stop(hand_off=False)
        await until(lambda: not desk._parts.base.mesh.connected(gone))
        await desk.api.send(t.SendRequest("42", "are you there?", "k1"))
        await until(lambda: desk._parts.pool.router.waiting("42") == 1)
        await desk.api.send(t.SendRequest("42", "unpin this", "k2"))

        async def both_answered() -> bool:
            return sum(role == "agent" for role, _ in await lines(desk, "42")) == 2

        await until(both_answered)
        answers = [row for row in (await desk.api.messages("42")).messages if row.role == "agent"]
        assert [(row.reply_to, row.text) for row in answers] == [
            ("k2", "Unpinned; runs on desk."),
            ("k1", "are you there?"),
        ]


async def test_pins_survive_when_every_machine_is_restarted(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        homes = desk._home, mini._home
        moved = await desk.api.transfer(t.TransferRequest("42", "mini"))
    async with running(homes[0]) as desk, running(homes[1]) as mini:
        for node in (desk, mini):

            async def actuated(node: Node = node) -> bool:
                return (await node.api.placement("42")).pin_state == "actuated"

            await until(actuated)
            place = await node.api.placement("42")
            assert (place.owner, place.pinned_to) == (mini.machine_id, mini.machine_id)
            assert place.ownership_epoch == moved.ownership_epoch


async def test_a_drill_disturbs_no_conversation(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):

        async def talk(node: Node, topic: str) -> None:
            for number in range(30):
                await node.api.send(t.SendRequest(topic, f"{topic} {number}"))
                await asyncio.sleep(0.01)

        talking = asyncio.gather(talk(desk, "a"), talk(mini, "b"))
        result = await desk.api.verify(t.VerifyRequest())
        await talking
        assert result.passed, result.drills[0].finding
        for topic in ("a", "b"):

            async def all_there(topic: str = topic) -> bool:
                return len(await lines(desk, topic)) >= 60

            await until(all_there)
            said = await lines(desk, topic)
            wanted = [f"{topic} {number}" for number in range(30)]
            assert [text for role, text in said if role == "user"] == wanted
            assert sorted(text for role, text in said if role == "agent") == sorted(wanted)
        assert sorted(row.topic for row in (await desk.api.topics()).topics) == ["a", "b"]


async def test_a_removed_machine_is_no_target_and_frees_its_topics(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.transfer(t.TransferRequest("42", "mini"))
        await desk.api.remove_machine("mini")
        for name in ("mini", mini.machine_id):
            error = await refused(desk.api.transfer(t.TransferRequest("43", name)))
            assert (error.status, error.extra["known"]) == (404, ["desk"])
            for call in (
                desk.api.pool_machine(name),
                desk.api.rename(name, t.RenameRequest("attic")),
                desk.api.verify(t.VerifyRequest(name)),
                desk.api.handoff(t.HandoffRequest(name)),
            ):
                assert (await refused(call)).status == 404
        place = await desk.api.placement("42")
        assert (place.owner, place.pinned_to) == (desk.machine_id, None)
        for call in (
            mini.api.transfer(t.TransferRequest("42", "desk")),
            mini.api.unpin(t.UnpinRequest("42")),
            mini.api.verify(t.VerifyRequest()),
            mini.api.set_flag(t.FlagChange("lease", "open")),
            mini.api.update(t.UpdateRequest()),
        ):
            await until(lambda: mini._parts.base.registry.get(mini.machine_id).removed)
            assert (await refused(call)).status == 403


async def test_a_topic_that_was_not_freed_with_its_machine_is_freed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.api.membership.RETRY_S", 0.05)
    async with pair(tmp_path) as (desk, _):
        await desk.api.transfer(t.TransferRequest("42", "mini"))
        ledger, refusals = desk._parts.delivery.ledger, 2
        write = ledger.set_placement

        async def busy(placement: Placement) -> Any:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise InstarError("lease-lost", "the lease ended")
            return await write(placement)

        monkeypatch.setattr(ledger, "set_placement", busy)
        assert (await desk.api.remove_machine("mini")).note
        await until(lambda: _unpinned(desk))


async def _unpinned(node: Node) -> bool:
    return (await node.api.placement("42")).pinned_to is None


async def test_what_is_handed_up_counts_only_if_a_holder_of_its_epoch_wrote_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.transfer(t.TransferRequest("42", "mini"))
        ledger, base = desk._parts.delivery.ledger, desk._parts.base
        written = ledger.placement("42")
        assert written is not None
        assert written.holder == desk.machine_id
        await until(lambda: base.lease.holder_of(1) == desk.machine_id)
        ours = PlacementSeal(base.identity, base.registry, base.lease.holder_of)
        theirs = PlacementSeal(mini._parts.base.identity, base.registry, base.lease.holder_of)
        assert ours.believes(written)
        higher = Placement("42", desk.machine_id, 1, 99, "pinned", desk.machine_id)
        forged = [
            higher,  # nobody signed it
            theirs.seal(higher),  # mini did not hold epoch 1
            msgspec.structs.replace(written, n=99),  # the number was changed
            msgspec.structs.replace(ours.seal(higher), owner=mini.machine_id),
        ]
        await ledger.adopt(mini.machine_id, [], forged)
        assert ledger.placements_refused == len(forged)
        assert ledger.placement("42") == written
        older = ours.seal(Placement("42", None, 1, 0, "unowned"))
        await ledger.adopt(mini.machine_id, [], [older])
        assert ledger.placement("42") == written, "what is older never comes back"
        await ledger.adopt(mini.machine_id, [], [ours.seal(higher)])
        assert (await desk.api.placement("42")).owner == desk.machine_id


async def test_without_the_pool_every_pool_route_says_so(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk", more="[pool]\nenabled = false\n")) as desk:
        api = desk.api
        for call in (
            api.pool(),
            api.pool_machine("desk"),
            api.rename("desk", t.RenameRequest("attic")),
            api.placement("42"),
            api.transfer(t.TransferRequest("42", "desk")),
            api.unpin(t.UnpinRequest("42")),
            api.e2e_results(),
        ):
            error = await refused(call)
            assert (error.status, error.code) == (503, "pool-disabled")
            assert "config.toml" in error.hint
        await api.send(t.SendRequest("42", "hello"))
        await until(lambda: _answered(desk))


async def _answered(node: Node) -> bool:
    return [role for role, _ in await lines(node, "42")] == ["user", "agent"]


async def test_a_renamed_machine_is_found_by_its_new_name_alone_wherever_asked(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await mini.api.rename("mini", t.RenameRequest("Büro"))
        for node in (desk, mini):
            await until(lambda node=node: _called(node, "Büro"))
            assert (await node.api.pool_machine("BU\u0308RO")).machine_id == mini.machine_id
            assert (await refused(node.api.pool_machine("mini"))).status == 404
        assert (await mini.api.transfer(t.TransferRequest("42", "büro"))).owner == mini.machine_id
        await desk.api.send(t.SendRequest("43", "move this to the büro"))
        await until(lambda: _moved(desk, mini.machine_id))
        taken = await refused(desk.api.rename("desk", t.RenameRequest("BÜRO")))
        assert taken.code == "nickname-taken"
        for bad in ("here", "back", "m_" + "0" * 32, " ", "a/b"):
            assert (await refused(desk.api.rename("desk", t.RenameRequest(bad)))).status == 400


async def _called(node: Node, name: str) -> bool:
    return name in [machine.nickname for machine in (await node.api.machines()).machines]


async def _moved(node: Node, machine: str) -> bool:
    return await owner(node, "43") == machine
