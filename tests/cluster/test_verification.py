"""The drill between real processes, by command: everything tried out, shown on every machine, kept."""

from __future__ import annotations

import json

import pytest

from tests.cluster.harness import Cluster, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def test_the_drill_by_command_and_by_itself_opens_the_gates_on_both_machines(cluster: Cluster) -> None:
    both = desk, mini = cluster.pair_up("desk", "mini")
    desk.say("42", "hello", key="k1")
    for machine in both:  # by itself, a moment after the join; the awake role stays where it is
        wait_for(lambda m=machine: {gate.state for gate in m.api.flags().gates} == {"open"}, 30)
    assert {result.live for result in mini.api.e2e_results().results} == {False}
    assert desk.api.lease().epoch == 1

    ran = mini.cli("verify", "--json")
    assert ran.returncode == 0, ran.stderr
    (drill,) = json.loads(ran.stdout)["drills"]
    assert (drill["passed"], drill["live"], drill["peer_nickname"]) == (True, True, "mini")
    assert desk.is_awake()
    assert desk.api.lease().epoch == 3  # there and back
    for machine in both:
        results = wait_for(lambda m=machine: [r for r in m.api.e2e_results().results if r.live])
        assert [(r.component, r.passed, r.verified, r.signed_by) for r in results] == [
            ("handoff", True, True, desk.id)
        ]
    shown = mini.cli("flags")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) == 1 + 8

    assert desk.cli("flags", "handoff", "shut").returncode == 0
    refused = mini.cli("wakeup")
    assert refused.returncode == 1
    assert "handoff: shut by hand" in refused.stderr
    assert "instar flags handoff open" in refused.stderr
    assert mini.cli("flags", "handoff", "auto").returncode == 0
    assert mini.cli("wakeup").returncode == 0
    assert len(desk.replies("42")) == 1
