"""A hub that lies is seen, everybody stops, and a person heals; a hub that is merely broken stops nobody."""

from __future__ import annotations

import json
import subprocess

from tests.cluster.harness import Cluster, Machine, wait_for

LEASE_REF = "refs/instar/lease"


def git(cluster: Cluster, *arguments: str) -> str:
    """Do to the hub what only its host could."""
    ran = subprocess.run(
        ["git", "--git-dir", cluster.hub, *arguments], capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


def stopped(machine: Machine) -> bool:
    return machine.api.health().split_brain is not None and not machine.is_awake()


def answered(machine: Machine, topic: str) -> list[str | None]:
    return sorted(str(row.reply_to) for row in machine.replies(topic))


def test_a_rewound_hub_stops_everybody_until_a_person_heals(cluster: Cluster) -> None:
    desk, mini = cluster.pair_up("desk", "mini")
    old = git(cluster, "rev-parse", LEASE_REF)
    desk.say("42", "first", key="k1")
    assert mini.cli("wakeup").returncode == 0  # the ref's tip is now a newer record
    mini.say("42", "second", key="k2")
    wait_for(lambda: len(desk.replies("42")) == 2)
    git(cluster, "update-ref", LEASE_REF, old)
    wait_for(lambda: stopped(desk) and stopped(mini))

    health = mini.api.health()
    assert health.status == "alarm"
    assert "rewound or replaced" in str(health.split_brain)
    assert {alert.code for alert in health.alerts} >= {"split-brain"}
    assert any("instar lease heal" in alert.hint for alert in health.alerts)
    assert mini.api.lease().state == desk.api.lease().state == "split-brain"
    assert any(line["level"] == "error" and "split brain" in line["message"] for line in desk.log())
    assert mini.cli("wakeup").returncode == 1
    assert mini.cli("send", "42", "nobody listens").returncode == 1
    mini.kill()
    mini.start()
    assert stopped(mini)  # it is remembered

    asked = mini.cli("lease", "heal", "--json")
    assert asked.returncode == 4
    assert "rewound" in json.loads(asked.stdout or asked.stderr)["error"]["prompt"]
    assert stopped(mini)
    healed = mini.cli("lease", "heal", "--yes")
    assert healed.returncode == 0, healed.stderr
    wait_for(lambda: mini.is_awake() and not stopped(desk) and desk.api.health().split_brain is None)
    assert mini.api.lease().epoch_text == "1·0"
    assert not desk.is_awake()
    desk.say("42", "third", key="k3")
    wait_for(lambda: answered(desk, "42") == ["k1", "k2", "k3"])
    cluster.wait_in_sync(mini, [desk])


def test_two_forced_generations_are_found_out_when_they_meet(cluster: Cluster) -> None:
    desk, mini, nas = (cluster.machine(name, hub=None) for name in ("desk", "mini", "nas"))
    desk.start()
    wait_for(desk.is_awake)
    for joiner in (mini, nas):
        cluster.join(desk, joiner)
        joiner.start()
    cluster.wait_in_sync(desk, [mini, nas])
    for machine in (desk, mini, nas):
        machine.kill()
    for number, machine in enumerate((mini, nas)):  # each is told by a person that the others are gone
        machine.start()
        forced = machine.cli("wakeup", "--force", "--yes")
        assert forced.returncode == 0, forced.stderr
        machine.say("42", f"on {machine.nickname}", key=f"k{number}")
        wait_for(lambda machine=machine, number=number: answered(machine, "42") == [f"k{number}"])  # type: ignore[misc]
        machine.kill()
    mini.start()
    nas.start()
    wait_for(lambda: stopped(mini) and stopped(nas))
    seen = mini.api.health().split_brain
    assert seen is not None
    assert {row["holder_nickname"] for row in seen["seen"]} == {"mini", "nas"}
    desk.start()
    wait_for(lambda: desk.api.health().split_brain is not None)  # it was told, and believes nobody
    assert nas.cli("lease", "heal", "--yes").returncode == 0
    wait_for(lambda: nas.is_awake() and nas.api.lease().epoch_text == "2·0")
    wait_for(lambda: answered(desk, "42") == answered(mini, "42") == answered(nas, "42") == ["k0", "k1"])
    cluster.wait_in_sync(nas, [desk, mini])
    assert [machine.nickname for machine in cluster.awake()] == ["nas"]


def test_a_lost_ref_stops_nobody_who_is_valid_by_promises(cluster: Cluster) -> None:
    desk, mini = cluster.pair_up("desk", "mini")
    epoch = desk.api.health().epoch
    git(cluster, "update-ref", "-d", LEASE_REF)
    wait_for(lambda: "hub-replaced" in {alert.code for alert in desk.api.health().alerts})
    assert (desk.is_awake(), desk.api.health().status) == (True, "alarm")
    desk.say("42", "still here", key="k1")
    wait_for(lambda: answered(mini, "42") == ["k1"])
    assert desk.api.health().split_brain is None
    healed = desk.cli("lease", "heal", "--yes")
    assert healed.returncode == 0, healed.stderr
    assert desk.api.health().epoch > epoch
    wait_for(lambda: desk.api.health().status == "ok")
    assert git(cluster, "rev-parse", "--verify", LEASE_REF)
    cluster.wait_in_sync(desk, [mini])


def test_there_is_nothing_to_heal_in_a_mesh_that_is_well(cluster: Cluster) -> None:
    desk = cluster.machine("desk").start()
    wait_for(desk.is_awake)
    refused = desk.cli("lease", "heal", "--yes")
    assert refused.returncode == 1
    assert "no split brain" in refused.stderr
    assert desk.is_awake()
