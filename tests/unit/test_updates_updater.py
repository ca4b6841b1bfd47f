"""The updater on the awake machine and on the others, over an in-memory mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from instar_node.build import Build
from instar_node.clock import SystemClock
from instar_node.contracts import PeerError, PeerInfo
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.updates import updater as module
from instar_node.updates.local_update import LocalUpdate
from instar_node.updates.messages import UpdateAnswer, UpdateOrder
from instar_node.updates.restart_handshake import UpdateRestartHandshake
from instar_node.updates.updater import RollOutcome, Updater
from tests.unit.fakes_mesh import FakeAuthority, FakeMembers, FakeMesh, Net, eventually

OLD, BRIDGE, NEW = Build("1.0", (1, 1)), Build("1.1", (1, 2)), Build("2.0", (2, 2))


class Wire(FakeMesh):
    """Says of each machine what the world has it run."""

    world: World

    def info(self, peer: str) -> PeerInfo | None:
        info = super().info(peer)
        if info is None:
            return None
        other = self.world.machines[peer]
        return msgspec.structs.replace(
            info,
            version=other.running.version,
            protocol=other.running.protocol,
            incarnation=str(other.starts),
        )


class Authority(FakeAuthority):
    world: World

    def ack_set(self) -> frozenset[str]:
        return frozenset(self.world.machines) - {self.me} if self.acting_epoch() else frozenset()


class Machine:
    def __init__(self, world: World, name: str, folder: Path) -> None:
        self.id, self.world = f"m-{name}", world
        self.running = self.installed = self.comes_up_with = OLD
        self.starts = 1
        mesh = Wire(world.net, self.id)
        world.net.nodes[self.id] = mesh
        mesh.world = world
        self.authority = Authority(self.id)
        self.authority.world = world
        self.authority.set("m-desk", 1)
        self.updater = self._node(mesh, folder / f"{name}.json")

    def _node(self, mesh: Wire, path: Path) -> Updater:
        clock = SystemClock()
        self.handshake = UpdateRestartHandshake(path)
        local = LocalUpdate(
            build=OLD,
            handshake=self.handshake,
            command=(),
            restart=self.restart,
            clock=clock,
            ask_installed=self._installed,
        )
        return Updater(
            local=local,
            hand_off=self.world.hand_off,
            mesh=mesh,
            members=self.world.members,
            authority=self.authority,
            clock=clock,
            events=EventHub(clock),
        )

    async def _installed(self) -> Build:
        return self.installed

    def install(self, build: Build, comes_up_with: Build | None = None) -> None:
        self.installed, self.comes_up_with = build, comes_up_with or build

    def restart(self) -> None:
        self.running = self.comes_up_with
        self.starts += 1
        self.world.restarted.append(self.id)


class World:
    """desk is awake; every machine runs 1.0."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.net, self.members = Net(), FakeMembers(*names)
        self.restarted: list[str] = []
        self.handed_to: list[str] = []
        self.refuses = ""
        self.refusals = 0
        """How often; none left: it goes well."""
        self.machines: dict[str, Machine] = {}
        for name in names:
            self.machines[f"m-{name}"] = Machine(self, name, folder)
        self.desk = self.machines["m-desk"]

    async def hand_off(self, machine: str) -> str:
        self.handed_to.append(machine)
        self.refusals -= 1
        return self.refuses if self.refusals >= 0 else ""

    def install_everywhere(self, build: Build) -> None:
        for machine in self.machines.values():
            machine.install(build)

    async def update(self, to: str = "") -> RollOutcome:
        return await self.desk.updater.update(to)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_PAUSE_S", 0.0)
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(module, "BACK_S", 0.2)
    monkeypatch.setattr(module, "SYNC_S", 0.2)


def steps(outcome: RollOutcome) -> list[tuple[str, str]]:
    return [(step.nickname, step.step) for step in outcome.steps]


async def test_the_others_go_first_the_role_is_handed_on_and_this_machine_restarts_last(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, "desk", "mini", "attic")
    world.install_everywhere(BRIDGE)
    outcome = await world.update()
    assert outcome.outcome == "restarting"
    assert steps(outcome) == [
        ("attic", "restarting"),
        ("attic", "updated"),
        ("mini", "restarting"),
        ("mini", "updated"),
        ("attic", "handing over"),
        ("attic", "awake"),
        ("desk", "restarting"),
    ]
    await eventually(lambda: len(world.restarted) == 3)
    assert world.restarted == ["m-attic", "m-mini", "m-desk"]
    intended = [machine.handshake.last for machine in world.machines.values()]
    assert [one and (one.expected, one.previous) for one in intended] == [("1.1", "1.0")] * 3


async def test_the_first_machine_that_comes_up_wrong_ends_the_update(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini", "attic")
    world.install_everywhere(BRIDGE)
    world.machines["m-attic"].install(BRIDGE, comes_up_with=OLD)
    outcome = await world.update()
    assert outcome.outcome == "failed"
    assert outcome.reason == "attic: it came up with version 1.0 instead of 1.1"
    assert world.restarted == ["m-attic"]
    assert world.handed_to == []


async def test_a_machine_that_does_not_come_back_ends_it_too(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini")
    world.install_everywhere(BRIDGE)
    restart: Callable[[], None] = world.machines["m-mini"].restart

    def and_stay_away() -> None:
        restart()
        world.net.isolate("m-mini")

    world.machines["m-mini"].updater.local._restart = and_stay_away
    outcome = await world.update()
    assert (outcome.outcome, "did not come back" in outcome.reason) == ("failed", True)
    assert world.handed_to == []


async def test_a_version_that_cannot_take_over_from_this_one_is_never_handed_to(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini")
    world.install_everywhere(NEW)
    outcome = await world.update()
    assert outcome.outcome == "failed"
    assert (
        "no updated machine can take over from 1.0: held back: version 2.0 speaks protocol 2"
        in outcome.reason
    )
    assert world.handed_to == []
    assert world.restarted == ["m-mini"]


async def test_when_the_role_does_not_move_this_machine_does_not_restart(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini")
    world.install_everywhere(BRIDGE)
    world.refuses, world.refusals = "mini: not in sync", 9
    outcome = await world.update()
    assert (outcome.outcome, "not in sync" in outcome.reason) == ("failed", True)
    assert world.handed_to == ["m-mini"] * module.HANDOFF_TRIES
    assert world.restarted == ["m-mini"]


async def test_a_handoff_that_was_aborted_once_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini")
    world.install_everywhere(BRIDGE)
    world.refuses, world.refusals = "mini did not take the lease in time", 1
    outcome = await world.update()
    assert outcome.outcome == "restarting"
    assert [step for _, step in steps(outcome)] == [
        *("restarting", "updated", "handing over", "not awake", "handing over", "awake", "restarting")
    ]


async def test_who_lost_the_role_in_a_failed_handoff_hands_over_no_more(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini")
    world.install_everywhere(BRIDGE)
    world.refuses, world.refusals = "lost", 9
    hand_off = world.desk.updater._hand_off

    async def and_lose(machine: str) -> str:
        world.desk.authority.valid = False
        return await hand_off(machine)

    world.desk.updater._hand_off = and_lose
    assert (await world.update()).outcome == "failed"
    assert world.handed_to == ["m-mini"]


async def test_nothing_restarts_for_a_version_that_is_not_installed_here_or_there(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini")
    assert (await world.update()).outcome == "nothing-to-do"
    here = await world.update("1.1")
    assert (here.outcome, here.reason) == ("failed", "version 1.0 is installed, not 1.1")
    world.desk.install(BRIDGE)
    there = await world.update("1.1")
    assert there.reason == "mini: version 1.0 is installed, not 1.1"
    assert world.restarted == []


async def test_who_is_away_is_named_and_a_machine_alone_just_restarts(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini")
    world.install_everywhere(BRIDGE)
    world.net.isolate("m-mini")
    outcome = await world.update()
    assert outcome.outcome == "restarting"
    assert "not reached: mini" in outcome.reason
    await eventually(lambda: world.restarted == ["m-desk"])
    assert world.handed_to == []


async def test_only_the_awake_machine_may_order_and_a_node_that_nobody_restarts_refuses(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, "desk", "mini", "attic")
    world.install_everywhere(BRIDGE)
    attic = world.net.nodes["m-attic"]
    with pytest.raises(PeerError) as caught:
        await attic.request("m-mini", UpdateOrder(""), UpdateAnswer, within=1)
    assert caught.value.code == "not-holder"
    world.machines["m-mini"].updater.local._restart = None
    world.net.isolate("m-attic")
    outcome = await world.update()
    assert (outcome.outcome, "nothing would start this node again" in outcome.reason) == ("failed", True)


async def test_one_update_at_a_time(tmp_path: Path) -> None:
    world = World(tmp_path, "desk", "mini")
    world.install_everywhere(BRIDGE)
    first = asyncio.create_task(world.update())
    await asyncio.sleep(0)
    with pytest.raises(InstarError) as caught:
        await world.update()
    assert caught.value.code == "update-running"
    await first
