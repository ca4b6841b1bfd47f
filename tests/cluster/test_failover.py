"""A machine dies in the middle of a conversation, and the other answers the next message, once."""

from __future__ import annotations

import pytest

from tests.cluster.harness import TTL_MS, Cluster, Machine, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def test_after_a_kill_the_other_takes_over_by_itself_and_answers_once(cluster: Cluster) -> None:
    desk, mini = cluster.pair_up("desk", "mini")
    holds(desk, by_promise_of=mini)
    assert (mini.api.lease().state, mini.api.lease().if_lost.next) == ("observed", mini.id)
    desk.say("42", "before", key="k1")
    wait_for(lambda: mini.replies("42"))
    desk.say("42", "just before the kill", key="k2")
    desk.kill()
    wait_for(mini.is_awake, 30)
    holds_alone(mini, after=desk)
    mini.say("42", "after", key="k3")
    wait_for(lambda: len(mini.replies("42")) == 3, 30)
    answered = [row.reply_to for row in mini.api.messages("42").messages if row.role == "agent"]
    assert sorted(str(key) for key in answered) == ["k1", "k2", "k3"]
    desk.start()
    wait_for(lambda: not desk.is_awake() and desk.api.lease().holder == mini.id)
    assert mini.is_awake()
    cluster.wait_in_sync(mini, [desk])
    holds(mini, by_promise_of=desk)


def holds(awake: Machine, *, by_promise_of: Machine) -> None:
    """The lease as it is shown while both are well: valid for some of its ttl, because the other promised."""

    def shown() -> bool:
        view = awake.api.lease()
        promised = {row.machine_id: row.promised_ms_ago for row in view.evidence}
        age = promised.get(by_promise_of.id)
        return (
            (view.holder, view.state, view.medium, view.benched) == (awake.id, "held", "promise", [])
            and 0 < (view.valid_for_ms or 0) <= TTL_MS
            and age is not None
            and age < TTL_MS
            and view.if_lost.next == by_promise_of.id
        )

    wait_for(shown)


def holds_alone(awake: Machine, *, after: Machine) -> None:
    """As it is shown after a failover: valid by its own swaps, the dead machine on the bench, and why."""
    view = awake.api.lease()
    assert (view.holder, view.medium, view.benched) == (awake.id, "hub", [after.id])
    assert [(row.holder, row.reason) for row in view.history] == [
        (awake.id, "failover"),
        (after.id, "founded"),
    ]
    said = awake.cli("lease").stdout
    for word in (awake.nickname, after.nickname, "failover", "founded", "hub"):
        assert word in said


def test_with_the_embedded_hub_the_survivor_says_why_it_may_not_take_over(cluster: Cluster) -> None:
    desk, mini = cluster.machine("desk", hub=None).start(), cluster.machine("mini", hub=None)
    wait_for(desk.is_awake)
    cluster.join(desk, mini)
    mini.start()
    cluster.wait_in_sync(desk, [mini])
    desk.kill()
    wait_for(lambda: not next(m for m in mini.api.machines().machines if m.machine_id == desk.id).online)
    refused = mini.cli("wakeup")
    assert refused.returncode == 1
    assert "embedded hub" in refused.stderr
    assert "--force" in refused.stderr
    assert mini.cli("wakeup", "--force").returncode == 4
    assert mini.cli("wakeup", "--force", "--yes").returncode == 0
    assert mini.is_awake()
