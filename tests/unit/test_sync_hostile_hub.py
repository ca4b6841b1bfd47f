"""A host that lies, and credentials in the wrong hands: nothing is believed, and the person sees what was
refused; the awake machine sets its line right again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pygit2
import pytest

from instar_node.errors import InstarError
from instar_node.identity.keys import MachineIdentity
from instar_node.sync.commit import Draft, Person, signed_commit
from instar_node.sync.leader import StateLeader
from instar_node.sync.repository import registry_files
from instar_node.sync.tree import PLAIN, Entry, encode_tree, parse_tree
from tests.unit.identity_support import new_identity
from tests.unit.lease_store_support import fake_ssh
from tests.unit.sync_world import Machine, World, a_world, until

Forge = Callable[[World, Machine, Machine], str | None]


def on_top(
    world: World,
    base: str,
    signer: MachineIdentity,
    *,
    claims: str | None = None,
    epoch: int = 1,
    time: int | None = None,
    tree: str | None = None,
    signed: bool = True,
) -> str:
    """A commit on top of the hub's, made by ``signer``, put into the hub."""
    desk = world.machines[0]
    hub = pygit2.Repository(str(world.hub))
    parent = hub[base]
    when = parent.commit_time + 1 if time is None else time
    person = Person("x", claims or signer.machine_id, when)
    draft = Draft(
        tree=tree or str(parent.tree_id),
        parent=base,
        author=person,
        committer=person,
        subject="planted",
        mesh_id=desk.registry.mesh_id,
        epoch=epoch,
    )
    payload = draft.payload()
    return world.plant(signed_commit(payload, signer.sign_commit(payload)) if signed else payload)


def unsigned(world: World, desk: Machine, mini: Machine) -> str:
    return on_top(world, world.hub_tip() or "", desk.identity, signed=False)


def by_a_stranger(world: World, desk: Machine, mini: Machine) -> str:
    return on_top(world, world.hub_tip() or "", new_identity(world.folder, "stranger"))


def by_a_member_that_is_not_awake(world: World, desk: Machine, mini: Machine) -> str:
    return on_top(world, world.hub_tip() or "", mini.identity)


def in_the_name_of_the_holder(world: World, desk: Machine, mini: Machine) -> str:
    return on_top(world, world.hub_tip() or "", mini.identity, claims=desk.id)


def backdated(world: World, desk: Machine, mini: Machine) -> str:
    return on_top(world, world.hub_tip() or "", desk.identity, time=1_000)


def of_an_epoch_to_come(world: World, desk: Machine, mini: Machine) -> str:
    return on_top(world, world.hub_tip() or "", mini.identity, epoch=7)


def with_a_forged_registry(world: World, desk: Machine, mini: Machine) -> str:
    """Signed by the true holder, as if its key had been stolen: the registry chain still gives it away."""
    hub = pygit2.Repository(str(world.hub))
    *earlier, last = desk.registry.records
    forged = (*earlier, msgspec.structs.replace(last, nickname="evil"))
    entries = [
        Entry(path.split("/")[1], PLAIN, str(hub.create_blob(data)))
        for path, data in registry_files(forged).items()
    ]
    folder = str(hub.write(pygit2.enums.ObjectType.TREE, encode_tree(entries)))
    tip = world.hub_tip() or ""
    whole = [
        msgspec.structs.replace(entry, oid=folder) if entry.name == "machines" else entry
        for entry in parse_tree(hub.read(hub[tip].tree_id)[1])
    ]
    tree = str(hub.write(pygit2.enums.ObjectType.TREE, encode_tree(whole)))
    return on_top(world, tip, desk.identity, tree=tree)


def with_a_link_out(world: World, desk: Machine, mini: Machine) -> str:
    hub = pygit2.Repository(str(world.hub))
    tip = world.hub_tip() or ""
    link = Entry("escape", "120000", str(hub.create_blob(b"/etc/passwd")))
    entries = [*parse_tree(hub.read(hub[tip].tree_id)[1]), link]
    tree = str(hub.write(pygit2.enums.ObjectType.TREE, encode_tree(entries)))
    return on_top(world, tip, desk.identity, tree=tree)


def another_history(world: World, desk: Machine, mini: Machine) -> str:
    hub = pygit2.Repository(str(world.hub))
    person = pygit2.Signature("x", f"{desk.id}@instar", 1_700_000_000, 0)
    return str(hub.create_commit(None, person, person, "x", hub.TreeBuilder().write(), []))


def no_commit_at_all(world: World, desk: Machine, mini: Machine) -> str:
    return str(pygit2.Repository(str(world.hub)).create_blob(b"garbage"))


def on_nothing(world: World, desk: Machine, mini: Machine) -> str:
    """Its parent exists nowhere, and its tree neither."""
    person = Person("x", desk.id, 1_700_000_000)
    draft = Draft("f0" * 20, "f1" * 20, person, person, "x", desk.registry.mesh_id, 1)
    payload = draft.payload()
    return world.plant(signed_commit(payload, desk.identity.sign_commit(payload)))


def rewound(world: World, desk: Machine, mini: Machine) -> str:
    return str(pygit2.Repository(str(world.hub))[world.hub_tip() or ""].parent_ids[0])


def removed(world: World, desk: Machine, mini: Machine) -> None:
    return None


@pytest.mark.parametrize(
    ("forge", "codes"),
    [
        (unsigned, {"unsigned"}),
        (by_a_stranger, {"not-a-member"}),
        (by_a_member_that_is_not_awake, {"not-holder"}),
        (in_the_name_of_the_holder, {"wrong-committer"}),
        (backdated, {"backdated"}),
        (of_an_epoch_to_come, {"epoch-ahead"}),
        (with_a_forged_registry, {"forged-registry"}),
        (with_a_link_out, {"bad-tree"}),
        (another_history, {"foreign-history", "foreign-commit"}),
        (no_commit_at_all, {"foreign-commit", "object-missing"}),
        (on_nothing, {"object-missing", "foreign-commit"}),
        (rewound, {"rewound"}),
        (removed, {"rewound"}),
    ],
)
async def test_what_a_hostile_host_shows_is_refused_told_and_set_right(
    tmp_path: Path, forge: Forge, codes: set[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("instar_node.wiring.state_hub.DiskStateHub.audit_s", 0.05)
    monkeypatch.setattr("instar_node.sync.core.PATIENCE_S", 0.3)
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        desk.write("a.md", "true\n")
        await until(lambda: mini.read("a.md") == "true\n")
        await world.in_step()
        head = mini.facts.head
        forged = forge(world, desk, mini)
        world.set_hub_tip(forged)
        await until(lambda: bool(mini.refused()), lambda: mini.facts)
        assert set(mini.refused()) <= codes
        assert mini.facts.head == head
        assert mini.files() == desk.files() == {"a.md": b"true\n"}
        assert any("refused the state that the hub shows" in event.text for event in mini.told)
        desk.write("b.md", "and on\n")
        await until(lambda: mini.read("b.md") == "and on\n", lambda: (desk.facts, mini.facts))
        await world.in_step()
        assert world.hub_tip() == desk.facts.head
        assert set(desk.refused()) <= codes | {"forked", "not-holder"}
        if forged is not None and codes != {"rewound"}:
            aside = pygit2.Repository(str(mini.home.state_repository)).references
            assert f"refs/instar/aside/{forged}" in list(aside)


async def test_a_late_push_of_the_old_holder_fails_and_its_edit_arrives_by_the_queue(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        world.net.cut(desk.id, mini.id)
        world.elect(mini, deaf=(desk,))
        await until(lambda: mini.facts.epoch == 2)
        fence = world.hub_tip()
        desk.write("late.md", "too late\n")  # desk still believes in epoch 1
        await until(lambda: bool(desk.refused()) or desk.facts.head != desk.facts.published)
        assert world.hub_tip() == fence
        desk.lease.hear()
        world.net.mend(desk.id, mini.id)
        await until(lambda: mini.read("late.md") == "too late\n")
        await world.in_step()


async def test_without_a_fence_a_late_push_of_the_old_holder_would_land(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule switched off: what the test before this one shows is the fence's doing."""

    async def no_fence(leader: StateLeader, epoch: int) -> bool:
        leader.fenced = epoch
        return True

    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        world.net.cut(desk.id, mini.id)
        monkeypatch.setattr(StateLeader, "_set_fence", no_fence)
        world.elect(mini, deaf=(desk,))
        await until(lambda: mini.facts.writes)
        before = world.hub_tip()
        desk.write("late.md", "too late\n")
        await until(lambda: world.hub_tip() != before, lambda: (desk.facts, mini.facts))
        assert world.hub_tip() == desk.facts.head


async def test_what_a_broken_off_fetch_left_behind_does_not_keep_the_hub_s_copy_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a tunnel the commits come first, and their files may never follow."""
    monkeypatch.setattr("instar_node.wiring.state_hub.DiskStateHub.audit_s", 0.05)
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        world.net.cut(desk.id, mini.id)
        async with mini.sync._core.lock:
            desk.write("folder/a.md", "x\n")
            await until(lambda: desk.sync.vouched == desk.facts.head == world.hub_tip() != mini.facts.head)
            theirs, ours = (pygit2.Repository(str(m.home.state_repository)) for m in (desk, mini))
            commit = theirs[str(world.hub_tip())]
            for left in (commit.id, commit.tree_id):
                ours.write(*theirs.read(left))
        await until(lambda: mini.read("folder/a.md") == "x\n", lambda: mini.facts)


async def test_nobody_writes_on_a_state_older_than_the_lease_vouches_for(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        earlier = world.hub_tip()
        world.net.cut(desk.id, mini.id)
        desk.write("a.md", "vouched for\n")
        await until(lambda: desk.sync.vouched == desk.facts.head == world.hub_tip() != earlier)
        world.lease.state_head = desk.sync.vouched
        kept = world.hub_tip()
        world.set_hub_tip(earlier)  # the host takes its copy back
        desk.lease.valid = False
        world.elect(mini)
        await until(lambda: mini.facts.behind is not None)
        assert not mini.facts.writes
        assert world.hub_tip() == earlier
        with pytest.raises(InstarError) as refused:
            await mini.sync.require_current()
        assert refused.value.code == "state-behind"
        world.set_hub_tip(kept)
        await until(lambda: mini.facts.writes and mini.read("a.md") == "vouched for\n")
        await mini.sync.require_current()


async def test_a_joiner_refuses_a_history_without_what_the_lease_vouches_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.wiring.state_hub.DiskStateHub.audit_s", 0.05)
    monkeypatch.setattr("instar_node.sync.core.PATIENCE_S", 0.3)
    async with a_world(tmp_path, "desk", hub=True) as (world, desk):
        earlier = world.hub_tip()
        desk.write("a.md", "x\n")
        await until(lambda: desk.sync.vouched == desk.facts.head == world.hub_tip() != earlier)
        world.lease.state_head = desk.sync.vouched
        world.elect(desk, world.lease.epoch)
        world.set_hub_tip(earlier)
        desk.lease.valid = False
        mini = await world.add("mini")
        world.net.cut(desk.id, mini.id)
        await until(lambda: "withheld" in mini.refused())
        assert mini.facts.head is None


async def test_a_remote_hub_is_pushed_to_by_git_and_a_lost_answer_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.wiring.state_hub.RemoteStateHub.push_pause_s", 0.0)
    monkeypatch.setattr("instar_node.wiring.state_hub.RemoteStateHub.audit_s", 0.2)
    fake_ssh(tmp_path, 'eval "$command"')
    monkeypatch.setenv("GIT_SSH_COMMAND", str(tmp_path / "ssh"))
    async with a_world(tmp_path, "desk", "mini", over_ssh=True) as (world, desk, mini):
        desk.write("a.md", "over ssh\n")
        await until(lambda: mini.read("a.md") == "over ssh\n")
        assert world.hub_tip() == desk.facts.head
        hook = world.hub / "hooks" / "reference-transaction"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text('#!/bin/sh\n[ "$1" = committed ] && kill -9 $PPID; exit 0\n')
        hook.chmod(0o755)
        desk.write("b.md", "its answer is lost\n")
        await until(lambda: desk.facts.hub_error is not None)
        hook.unlink()
        await until(lambda: mini.read("b.md") == "its answer is lost\n")
        await world.in_step()
        desk.lease.valid = False
        world.net.cut(desk.id, mini.id)
        world.elect(mini)
        await until(lambda: mini.facts.writes)
        assert world.hub_tip() == mini.facts.head
        assert not mini.facts.refused
