"""A machine dies in the middle of a conversation, and the other answers the next message, once."""

from __future__ import annotations

import pytest

from tests.cluster.harness import Cluster, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def test_after_a_kill_the_other_takes_over_by_itself_and_answers_once(cluster: Cluster) -> None:
    desk, mini = cluster.pair_up("desk", "mini")
    desk.say("42", "before", key="k1")
    wait_for(lambda: mini.replies("42"))
    desk.say("42", "just before the kill", key="k2")
    desk.kill()
    wait_for(lambda: mini.is_awake, 30)
    mini.say("42", "after", key="k3")
    wait_for(lambda: len(mini.replies("42")) == 3, 30)
    answered = [row.reply_to for row in mini.api.messages("42").messages if row.role == "agent"]
    assert sorted(str(key) for key in answered) == ["k1", "k2", "k3"]
    desk.start()
    wait_for(lambda: not desk.is_awake() and desk.api.lease().holder == mini.id)
    assert mini.is_awake()


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
