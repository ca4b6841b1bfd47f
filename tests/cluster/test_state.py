"""The state folder between real processes: edits arrive once, through handoffs and kills, on every hub."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, Machine, wait_for
from tests.hubs.servers import etcd_server

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def read(machine: Machine, path: str) -> str | None:
    file = machine.home.state / path
    return file.read_text() if file.is_file() else None


def write(machine: Machine, path: str, text: str) -> None:
    (machine.home.state / path).write_text(text)


def in_step(*machines: Machine) -> None:
    """All show the same verified commit and nothing waits."""

    def equal() -> bool:
        views = [machine.api.sync() for machine in machines]
        return len({view.head for view in views}) == 1 and all(view.state == "in-sync" for view in views)

    wait_for(equal, 30)


def paired(cluster: Cluster, hub: str | None) -> list[Machine]:
    desk, mini = cluster.machine("desk", hub=hub).start(), cluster.machine("mini", hub=hub)
    wait_for(desk.is_awake)
    cluster.join(desk, mini)
    mini.start()
    cluster.wait_in_sync(desk, [mini])
    return [desk, mini]


def on_a_witness(cluster: Cluster) -> list[Machine]:
    """``desk`` and ``mini``, and ``nas``, which keeps register and state for them."""
    desk, mini = paired(cluster, None)
    nas = cluster.machine("nas", hub=None)
    cluster.join(desk, nas)
    nas.start("--witness")
    wait_for(lambda: nas.api.health().role == "witness")
    moved = desk.cli("hub", "witness:nas")
    assert moved.returncode == 0, moved.stderr
    cluster.wait_in_sync(desk, [mini])
    return [desk, mini, nas]


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """What to hand to the machines as their hub."""
    if request.param != "etcd":
        yield {"path": "path", "embedded": None}[request.param]
        return
    with etcd_server(tmp_path) as url:
        yield url


@pytest.mark.parametrize("hub", ["path", "embedded", "etcd"], indirect=True)
def test_edits_of_both_machines_arrive_once_through_a_handoff(cluster: Cluster, hub: str | None) -> None:
    desk, mini = paired(cluster, hub)
    write(desk, "MEMORY.md", "desk remembers\n")
    wait_for(lambda: read(mini, "MEMORY.md") == "desk remembers\n")
    write(mini, "from mini.md", "mini remembers\n")
    wait_for(lambda: read(desk, "from mini.md") == "mini remembers\n")
    in_step(desk, mini)
    moved = desk.cli("handoff", "mini", "--json")
    assert moved.returncode == 0, moved.stderr
    wait_for(mini.is_awake)
    write(desk, "MEMORY.md", "desk remembers\nas a standby\n")
    wait_for(lambda: read(mini, "MEMORY.md") == "desk remembers\nas a standby\n", 30)
    in_step(desk, mini)
    shown = json.loads(mini.cli("sync", "--json").stdout)
    assert (shown["writes"], shown["refused"], shown["conflicts"]) == (True, [], [])
    assert set(history(mini)) == {f"{desk.id}@instar", f"{mini.id}@instar"}
    log = git(mini, "log", "--format=%G?")
    assert set(log.split()) == {"G"}, "git itself finds every commit well signed"


def test_after_a_kill_the_other_goes_on_with_the_same_state_and_the_first_catches_up(
    cluster: Cluster,
) -> None:
    desk, mini = paired(cluster, "path")
    write(desk, "a.md", "one\n")
    wait_for(lambda: read(mini, "a.md") == "one\n")
    in_step(desk, mini)
    desk.kill()
    write(mini, "b.md", "while desk is gone\n")
    wait_for(mini.is_awake, 30)
    wait_for(lambda: mini.api.sync().writes and mini.api.sync().state == "in-sync", 30)
    write(desk, "c.md", "edited while off\n")
    desk.start()
    wait_for(lambda: read(desk, "b.md") == "while desk is gone\n", 30)
    wait_for(lambda: read(mini, "c.md") == "edited while off\n", 30)
    in_step(desk, mini)
    assert mini.api.lease().epoch > 1
    assert not mini.api.sync().refused


def test_a_witness_gives_the_state_to_a_machine_that_was_away_when_its_writer_is_gone(
    cluster: Cluster,
) -> None:
    """Nobody else is there to fetch from: what mini gets of desk's last edit comes through nas's tunnel."""
    desk, mini, nas = on_a_witness(cluster)
    in_step(desk, mini, nas)
    mini.kill()
    wait_for(lambda: desk.api.lease().benched == [mini.id], 30)
    write(desk, "last words.md", "of desk\n")
    (desk.home.state / "ünïcode name.bin").write_bytes(bytes(range(256)))
    wait_for(lambda: read(nas, "last words.md") and (nas.home.state / "ünïcode name.bin").is_file())
    in_step(desk, nas)
    desk.kill()
    write(mini, "queued.md", "while off\n")
    mini.start()
    wait_for(lambda: (mini.home.state / "ünïcode name.bin").is_file(), 30)
    assert read(mini, "last words.md") == "of desk\n"
    assert (mini.home.state / "ünïcode name.bin").read_bytes() == bytes(range(256))
    desk.start()
    wait_for(lambda: read(nas, "queued.md") == read(desk, "queued.md") == "while off\n", 30)
    in_step(desk, mini, nas)
    assert not mini.api.sync().refused


def test_a_removed_machine_is_locked_out_of_the_state(cluster: Cluster) -> None:
    desk, mini = paired(cluster, "path")
    in_step(desk, mini)
    desk.api.remove_machine("mini")
    wait_for(lambda: mini.api.health().role == "removed")
    write(mini, "after.md", "too late\n")
    write(desk, "secret plan.md", "not for mini\n")
    wait_for(lambda: desk.api.sync().state == "in-sync" and desk.api.sync().files > 0)
    wait_for(lambda: "secret plan.md" in git(desk, "ls-tree", "--name-only", "HEAD"))
    assert read(mini, "secret plan.md") is None
    assert read(desk, "after.md") is None
    records = json.loads(read(desk, f"machines/{mini.id}.json") or "[]")
    assert records[-1]["kind"] == "remove"


def git(machine: Machine, *arguments: str) -> str:
    """What git says in the state folder; it knows the signers that the state itself lists."""
    command = ["git", "-C", str(machine.home.state), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def history(machine: Machine) -> list[str]:
    return git(machine, "log", "--format=%ce").split()
