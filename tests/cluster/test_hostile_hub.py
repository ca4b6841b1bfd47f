"""A removed machine keeps its account on the git host: whatever it does to the refs there stops nobody who is
valid by promises, is told, and is mended. From a state that a host takes back nobody goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from instar_node.coordination.git_repository import LeaseRepository
from instar_node.coordination.record import PURPOSE, KnownRecord, sign_record
from instar_node.identity.keys import MachineIdentity
from instar_node.sync.memory import FILE_NAME
from tests.cluster.harness import Cluster, Machine, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

LEASE, STATE = "refs/instar/lease", "refs/instar/state"
Harm = Callable[[Path, str, Machine], None]


def git(hub: Path, *arguments: str, stdin: str = "") -> str:
    """What anybody with an account on the host may do."""
    command = [
        "git",
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@example.org",
        "--git-dir",
        str(hub),
        *arguments,
    ]
    ran = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def delete(hub: Path, ref: str, removed: Machine) -> None:
    git(hub, "update-ref", "-d", ref)


def move_to_a_foreign_commit(hub: Path, ref: str, removed: Machine) -> None:
    tree = git(hub, "hash-object", "-t", "tree", "-w", "/dev/null")
    git(hub, "update-ref", ref, git(hub, "commit-tree", tree, "-m", "mine now"))


def move_to_a_record_of_its_own(hub: Path, ref: str, removed: Machine) -> None:
    """The next epoch, well signed with the key that was a member's once."""
    repository = LeaseRepository(hub)
    known: KnownRecord | None = repository.record_at(git(hub, "rev-parse", LEASE))
    assert known is not None
    identity = MachineIdentity.load(removed.home.machine)
    record = msgspec.structs.replace(
        known.record,
        epoch=known.record.epoch + 1,
        serial=known.record.serial + 1,
        prev=known.version,
        holder=identity.machine_id,
        electorate=(identity.machine_id,),
    )
    mesh_id = json.loads(removed.cli("whoami", "--json").stdout)["mesh_id"]
    signed = sign_record(record, lambda data: identity.sign(PURPOSE, mesh_id, data))
    git(hub, "update-ref", ref, repository.build(signed, known.version))


def move_to_what_no_decoder_survives(hub: Path, ref: str, removed: Machine) -> None:
    """A record nested deeper than a stack: refused like any other that is none."""
    deep = git(hub, "hash-object", "-w", "--stdin", stdin='{"unknown":' + "[" * 100_000)
    tree = git(hub, "mktree", stdin=f"100644 blob {deep}\tlease.json\n")
    git(hub, "update-ref", ref, git(hub, "commit-tree", tree, "-m", "deep"))


def garble(hub: Path, ref: str, removed: Machine) -> None:
    """Not even git can say what the ref is."""
    (hub / ref).write_bytes(b"ref: \xff\xfe\0 nobody\n")


def with_one_removed(cluster: Cluster) -> tuple[Machine, Machine, Machine]:
    """``desk`` awake and ``mini`` in sync; ``old`` was a member."""
    desk, mini, old = cluster.pair_up("desk", "mini", "old")
    desk.api.remove_machine("old")
    wait_for(lambda: old.api.health().role == "removed")
    old.stop()
    cluster.wait_in_sync(desk, [mini])
    return desk, mini, old


def with_the_state_taken_back(cluster: Cluster) -> tuple[Machine, Machine, str]:
    """``desk`` has died, and so has the copy of ``mini``, which was in sync. The hub shows a state before the
    one for which the lease vouches; the newest one is returned, too."""
    desk, mini = cluster.pair_up("desk", "mini")
    hub = Path(cluster.hub)
    wait_for(lambda: desk.api.sync().head == mini.api.sync().head == git(hub, "rev-parse", STATE))
    kept = git(hub, "rev-parse", STATE)
    record = LeaseRepository(hub).record_at(git(hub, "rev-parse", LEASE))
    assert record is not None
    desk.freeze()  # it must not bench the other while both go down
    mini.kill()
    desk.kill()
    shutil.rmtree(mini.home.state_repository)
    shutil.rmtree(mini.home.state)
    (mini.home.machine / FILE_NAME).unlink()
    git(hub, "update-ref", STATE, f"{record.record.state_head}^")
    mini.start()
    wait_for(lambda: mini.api.lease().counters.get("held_for_state"))
    return desk, mini, kept


def answers(machine: Machine) -> list[str]:
    return sorted(str(row.reply_to) for row in machine.replies("42"))


def replaced(machine: Machine) -> str | None:
    """What a machine says of the register."""
    alerts = machine.api.health().alerts
    return next((alert.message for alert in alerts if alert.code == "hub-replaced"), None)


def test_harm_to_the_lease_ref_stops_nobody_and_a_person_has_the_lease_written_anew(cluster: Cluster) -> None:
    desk, mini, old = with_one_removed(cluster)
    keys, said, epoch = list[str](), set[str | None]({None}), desk.api.health().epoch
    for harm in (
        move_to_a_record_of_its_own,
        delete,
        move_to_a_foreign_commit,
        move_to_what_no_decoder_survives,
        garble,
    ):
        harm(Path(cluster.hub), LEASE, old)
        said.add(wait_for(lambda: replaced(desk) not in said and replaced(desk)))  # type: ignore[arg-type]
        health = desk.api.health()
        assert (health.role, health.epoch, health.status) == ("awake", epoch, "alarm"), harm.__name__
        assert health.split_brain is None
        keys.append(harm.__name__)
        desk.say("42", "still here", key=harm.__name__)
        wait_for(lambda: answers(mini) == sorted(keys))
    assert not mini.is_awake()
    healed = desk.cli("lease", "heal", "--yes")
    assert healed.returncode == 0, healed.stderr
    wait_for(lambda: desk.api.health().status == "ok")
    cluster.wait_in_sync(desk, [mini])
    desk.kill()  # and the mended register serves a takeover again
    wait_for(mini.is_awake, 30)


def test_harm_to_the_state_ref_stops_no_edit_and_is_set_right_by_the_awake_machine(cluster: Cluster) -> None:
    desk, mini, old = with_one_removed(cluster)
    hub = Path(cluster.hub)
    for number, harm in enumerate((delete, move_to_a_foreign_commit, garble)):
        wait_for(lambda: desk.api.sync().state == mini.api.sync().state == "in-sync")
        refused = len(desk.api.sync().refused)
        harm(hub, STATE, old)
        (mini.home.state / f"{number}.md").write_text(harm.__name__)
        wait_for((desk.home.state / f"{number}.md").is_file)
        wait_for(lambda: git(hub, "for-each-ref", "--format=%(objectname)", STATE) == desk.api.sync().head)
        assert len(desk.api.sync().refused) > refused, harm.__name__
        assert desk.is_awake()
    wait_for(lambda: desk.api.sync().head == mini.api.sync().head)
    assert desk.api.sync().writes


def test_nobody_takes_over_on_a_state_that_the_hub_took_back_until_it_shows_the_newest_again(
    cluster: Cluster,
) -> None:
    desk, mini, kept = with_the_state_taken_back(cluster)
    told = wait_for(lambda: [a for a in mini.api.health().alerts if a.code == "state-behind"])
    assert "does not take over by itself" in told[0].message
    lost = mini.api.lease().if_lost
    assert lost.next is None
    assert "has not arrived here" in str(lost.why_not)
    assert "wakeup --force" in lost.hint
    assert "nobody would take over by itself" in mini.cli("doctor").stdout
    assert (mini.api.health().role, mini.api.lease().holder) == ("standby", desk.id)
    git(Path(cluster.hub), "update-ref", STATE, kept)
    wait_for(mini.is_awake)
    wait_for(lambda: mini.api.sync().writes)
    assert git(Path(cluster.hub), "merge-base", "--is-ancestor", kept, STATE) == ""


def test_a_state_that_nobody_has_any_more_is_given_up_by_a_person_and_by_nobody_else(
    cluster: Cluster,
) -> None:
    _, mini, _ = with_the_state_taken_back(cluster)
    asked = mini.cli("wakeup", "--force")
    assert (asked.returncode, mini.is_awake()) == (4, False)
    assert "desk cannot be reached, and the newest state is not here" in asked.stderr
    forced = mini.cli("wakeup", "--force", "--yes")
    assert forced.returncode == 0, forced.stderr
    wait_for(lambda: mini.api.sync().writes)
    assert not [alert for alert in mini.api.health().alerts if alert.code == "state-behind"]
