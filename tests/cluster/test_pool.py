"""Topics on real machines: asked, moved, queued, taken over and taken back, from whichever machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar_node.api import types as t
from instar_node.errors import InstarError
from tests.cluster.harness import Cluster, Machine, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def refused(machine: Machine, body: t.TransferRequest) -> InstarError:
    with pytest.raises(InstarError) as caught:
        machine.api.transfer(body)
    return caught.value


def same_everywhere(machines: list[Machine], read: Any) -> Any:
    """What all machines answer, as soon as they answer the same."""

    def agreed() -> Any:
        answers = [msgspec.to_builtins(read(machine)) for machine in machines]
        for answer in answers:
            for mine in ("answered_by", "is_this_machine"):
                answer.pop(mine, None)
        return [answers[0]] if all(answer == answers[0] for answer in answers) else []

    return wait_for(agreed)[0]


def test_a_topic_is_moved_from_any_machine_and_all_tell_the_same(cluster: Cluster) -> None:
    both = desk, mini = cluster.pair_up("desk", "mini")
    never = same_everywhere([*both], lambda machine: machine.api.placement("never-seen"))
    assert (never["owner"], never["reason"], never["pin_state"]) == (None, "unowned", "none")

    moved = mini.api.transfer(t.TransferRequest("42", "MINI"))  # a standby asks, the holder does it
    assert (moved.outcome, moved.owner, moved.owner_nickname) == ("moved", mini.id, "mini")
    placed = same_everywhere([*both], lambda machine: machine.api.placement("42"))
    assert (placed["owner"], placed["pinned_to"], placed["reason"]) == (mini.id, mini.id, "pinned")
    assert (placed["pin_state"], placed["lease_holder"]) == ("actuated", desk.id)
    assert placed["ownership_epoch"] == moved.ownership_epoch
    assert mini.api.placement("42").is_this_machine
    assert not desk.api.placement("42").is_this_machine

    desk.say("42", "hello", key="k1")
    (reply,) = wait_for(lambda: desk.replies("42"))
    assert (reply.machine_id, reply.reply_to) == (mini.id, "k1")  # it ran there, the holder sent it

    limited = refused(mini, t.TransferRequest("42", "desk"))
    assert (limited.status, limited.code) == (429, "rate-limited")
    assert 0 < limited.extra["retry_in_ms"] <= 10_000
    for machine in both:
        unknown = refused(machine, t.TransferRequest("42", "attic"))
        assert (unknown.status, unknown.extra["known"]) == (404, ["desk", "mini"])
        assert refused(machine, t.TransferRequest("42")).status == 400
    assert mini.api.transfer(t.TransferRequest("42", "mini")).outcome == "noop"
    assert mini.api.transfer(t.TransferRequest("42", undo=True)).owner == desk.id
    assert refused(desk, t.TransferRequest("42", undo=True)).code == "nothing-to-undo"

    pool = same_everywhere([*both], lambda machine: machine.api.pool().topics)
    assert pool == {"count": 1, "pinned": 0, "placed": 1, "unowned": 0}
    desk.say("43", "/move mini", key="k2")
    wait_for(lambda: [row.text for row in desk.replies("43")] == ["Moved to mini."])
    assert json.loads(mini.cli("unpin", "43", "--json").stdout)["reason"] == "placed"
    assert desk.api.placement("43").owner == mini.id  # unpinned, it stays where it runs


def test_a_pin_to_a_machine_that_is_away_waits_survives_a_failover_and_is_carried_out(
    cluster: Cluster,
) -> None:
    desk, mini, attic = cluster.pair_up("desk", "mini", "attic")
    attic.kill()
    wait_for(lambda: not next(m for m in desk.api.machines().machines if m.nickname == "attic").online)
    asked = refused(mini, t.TransferRequest("42", "attic"))
    assert (asked.status, asked.code, asked.extra["conditions"]) == (409, "needs-confirmation", ["offline"])
    token = asked.extra["confirm"]
    queued = mini.api.transfer(t.TransferRequest("42", "attic", token))
    assert (queued.outcome, queued.owner) == ("queued", None)
    assert queued.pending_reason == "attic is offline; runs there when it is back"
    desk.say("42", "wait for attic", key="k1")
    desk.kill()
    wait_for(mini.is_awake, 30)
    place = mini.api.placement("42")
    assert (place.pinned_to, place.pin_state, place.owner) == (attic.id, "pending", None)
    assert mini.replies("42") == []
    attic.start()
    (reply,) = wait_for(lambda: mini.replies("42"), 30)
    assert (reply.machine_id, reply.reply_to) == (attic.id, "k1")
    done = same_everywhere([mini, attic], lambda machine: machine.api.placement("42"))
    assert (done["owner"], done["pin_state"]) == (attic.id, "actuated")


def busy_until_let_go(folder: Path) -> str:
    """An agent that notes its runs, and answers only while there is no file ``hold``."""
    script = (
        f'echo "$INSTAR_TOPIC" >> {folder}/runs; while [ -e {folder}/hold ]; do sleep 0.05; done; echo done'
    )
    return f'[agent]\nkind = "command"\ncommand = ["sh", "-c", {json.dumps(script)}]\n'


@pytest.mark.parametrize("lost", ["killed", "frozen"])
def test_the_holder_takes_over_what_ran_on_a_machine_that_was_lost_and_runs_it_once_again(
    cluster: Cluster, lost: str
) -> None:
    (cluster.folder / "hold").touch()
    runs = cluster.folder / "runs"

    def configure(machine: Machine) -> None:
        machine.configure(agent=busy_until_let_go(cluster.folder), more="[pool]\nslots = 1\n")

    desk, mini = cluster.pair_up("desk", "mini", configure=configure)
    wait_for(lambda: len(desk.api.pool().machines) == 2)
    desk.say("first", "keeps desk busy", key="k1")
    wait_for(lambda: runs.exists() and runs.read_text().split() == ["first"])
    desk.say("second", "goes to mini", key="k2")
    wait_for(lambda: runs.read_text().split() == ["first", "second"])
    place = desk.api.placement("second")
    assert (place.owner, place.reason) == (mini.id, "placed")
    before = place.ownership_epoch
    if lost == "killed":
        mini.kill()
    else:
        mini.freeze()
    # "first" may run anew as well: a holder whose standby falls silent can lapse for a moment.
    wait_for(lambda: runs.read_text().split().count("second") == 2, 30)
    place = desk.api.placement("second")
    assert place.owner == desk.id
    assert before is not None
    assert place.ownership_epoch is not None
    assert place.ownership_epoch > before
    (cluster.folder / "hold").unlink()
    for topic in ("first", "second"):
        assert [row.machine_id for row in wait_for(lambda t=topic: desk.replies(t))] == [desk.id]
    if lost == "killed":
        mini.start()
    else:
        mini.thaw()  # its agent has answered meanwhile; that answer comes too late
    wait_for(lambda: mini.api.placement("second").owner == desk.id)
    assert not mini.api.placement("second").is_this_machine
    cluster.wait_in_sync(desk, [mini])
    assert runs.read_text().split().count("second") == 2
    assert [len(desk.replies(topic)) for topic in ("first", "second")] == [1, 1]
