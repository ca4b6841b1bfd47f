"""A witness keeps the lease for two machines without any hub of their own: failover through it."""

from __future__ import annotations

import json

import pytest

from instar_node.errors import InstarError
from tests.cluster.harness import Cluster, Machine, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def with_witness(cluster: Cluster) -> tuple[Machine, Machine, Machine]:
    """``desk`` awake and ``mini`` in sync, on the witness ``nas``, all set up by commands."""
    desk, mini, nas = (cluster.machine(name, hub=None) for name in ("desk", "mini", "nas"))
    desk.start()
    wait_for(desk.is_awake)
    for machine, more in ((mini, ()), (nas, ("--witness",))):
        view = json.loads(desk.cli("pair", "--no-wait", "--json").stdout)
        joined = machine.cli("join", view["url"], "--code", view["code"], *more)
        assert joined.returncode == 0, joined.stderr
        machine.start(*more)
    cluster.wait_in_sync(desk, [mini])
    wait_for(lambda: "nas" in {row.nickname for row in desk.api.machines().machines if row.online})
    moved = desk.cli("hub", "witness:nas")
    assert moved.returncode == 0, moved.stderr
    return desk, mini, nas


def test_a_witness_lets_the_other_take_over_and_outlives_its_own_crash(cluster: Cluster) -> None:
    desk, mini, nas = with_witness(cluster)
    cluster.wait_in_sync(desk, [mini])
    desk.say("42", "before", key="k1")
    roles = {row.nickname: (row.role, row.electorate) for row in mini.api.machines().machines}
    assert roles == {"desk": ("awake", True), "mini": ("standby", True), "nas": ("witness", False)}
    assert nas.api.health().role == "witness"
    assert nas.cli("wakeup").returncode == 1
    nas.kill()
    desk.say("42", "without the witness", key="k2")
    nas.start("--witness")
    wait_for(lambda: nas.api.lease().holder == desk.id)
    wait_for(lambda: len(mini.replies("42")) == 2)
    desk.kill()
    wait_for(mini.is_awake, 40)
    mini.say("42", "after", key="k3")
    wait_for(lambda: len(mini.replies("42")) == 3)
    assert sorted(str(row.reply_to) for row in mini.replies("42")) == ["k1", "k2", "k3"]
    view = mini.api.lease()
    assert (view.hub.kind, view.hub.reachable) == ("witness", True)
    desk.start()
    wait_for(lambda: desk.api.lease().holder == mini.id and not desk.is_awake())


def test_without_its_witness_nobody_takes_over_until_it_is_back(cluster: Cluster) -> None:
    desk, mini, nas = with_witness(cluster)
    cluster.wait_in_sync(desk, [mini])
    nas.kill()
    desk.kill()
    wait_for(lambda: mini.api.lease().state == "expired")
    assert not mini.is_awake()
    wait_for(lambda: "hub-unreachable" in {alert.code for alert in mini.api.health().alerts})
    nas.start("--witness")
    wait_for(mini.is_awake, 40)


def test_a_machine_with_a_mesh_of_its_own_becomes_a_witness_while_its_node_runs(cluster: Cluster) -> None:
    desk, nas = cluster.machine("desk", hub=None).start(), cluster.machine("nas", hub=None).start()
    wait_for(desk.is_awake)
    wait_for(nas.is_awake)
    view = json.loads(desk.cli("pair", "--no-wait", "--json").stdout)
    joined = nas.cli("join", view["url"], "--code", view["code"], "--witness")
    assert joined.returncode == 0, joined.stderr
    wait_for(lambda: nas.api.health().role == "witness")
    assert desk.cli("hub", "witness:nas").returncode == 0
    assert desk.is_awake()


def test_a_standby_started_as_a_witness_becomes_one(cluster: Cluster) -> None:
    desk, nas = cluster.machine("desk", hub=None).start(), cluster.machine("nas", hub=None)
    wait_for(desk.is_awake)
    cluster.join(desk, nas)
    nas.start()
    cluster.wait_in_sync(desk, [nas])
    nas.stop()
    nas.start("--witness")
    wait_for(lambda: nas.api.health().role == "witness")
    wait_for(lambda: desk.api.lease().electorate == [desk.id])
    assert desk.cli("hub", "witness:nas").returncode == 0
    nas.stop()
    nas.start()
    assert nas.api.health().role == "witness"
    desk.stop()
    with pytest.raises(InstarError, match="cannot become a witness"):
        desk.start("--witness")
