"""Machines that move are followed, and what only works on one host stays there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from identity_support import FixedAuthority, ManualClock, MemoryMesh, founded, new_identity

from instar_node.identity.address_book import AddressBook
from instar_node.identity.registry import MachineRegistry

LAN = "http://192.168.1.20:7707"
OTHER = "http://10.0.0.9:7707"
LOOP = "http://127.0.0.1:7707"
LOOP_TOO = "http://127.0.0.1:7708"


class Gate(ManualClock):
    """Sleepers wait until ``open`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await self.open.wait()
        self.open.clear()


class Machine:
    """One member; ``urls`` is where it is, ``hellos`` what others said to it. ``desk`` holds the lease."""

    def __init__(
        self, name: str, folder: Path, registry: MachineRegistry, network: dict[str, MemoryMesh]
    ) -> None:
        self.registry = registry
        self.id = new_identity(folder, name).machine_id
        self.clock = Gate()
        self.urls: tuple[str, ...] = ()
        self.hellos: dict[str, tuple[str, ...]] = {}
        self.mesh = MemoryMesh(self.id, network)
        self.authority = FixedAuthority(self.id, registry.records[0].machine_id)
        self.book = AddressBook(
            self.mesh,
            registry,
            self.authority,
            self.clock,
            lambda: self.urls,
            lambda peer: self.hellos.get(peer, ()),
        )

    @property
    def recorded(self) -> tuple[str, ...]:
        member = self.registry.get(self.id)
        assert member is not None
        return member.urls


class World:
    def __init__(self, folder: Path) -> None:
        self.registry = founded(folder, "desk", ManualClock())
        network: dict[str, MemoryMesh] = {}
        for name in ("mini", "lap"):
            self.registry.admit(new_identity(folder, name).public, name, [], epoch=1)
        names = ("desk", "mini", "lap")
        self.desk, self.mini, self.lap = (Machine(name, folder, self.registry, network) for name in names)
        self.all = (self.desk, self.mini, self.lap)

    def meet(
        self, one: Machine, other: Machine, one_says: tuple[str, ...], other_says: tuple[str, ...]
    ) -> None:
        other.hellos[one.id], one.hellos[other.id] = one_says, other_says
        one.mesh.connect(other.id)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    world.desk.urls, world.mini.urls, world.lap.urls = (LAN,), (OTHER,), (LOOP,)
    for machine in world.all:
        machine.book.start()
    yield world
    for machine in world.all:
        await machine.book.stop()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_holder_records_itself_and_what_others_say_in_their_hello(world: World) -> None:
    await settle()
    assert (world.desk.recorded, world.mini.recorded) == ((LAN,), ())
    world.meet(world.desk, world.mini, (LAN,), (OTHER,))
    assert world.mini.recorded == (OTHER,)
    length = len(world.registry.records)
    world.desk.book.record()
    assert len(world.registry.records) == length, "what is known makes no record"


async def test_who_moves_while_connected_says_so_and_is_followed(world: World) -> None:
    world.meet(world.desk, world.mini, (LAN,), (OTHER,))
    world.mini.urls = ("http://10.0.0.77:7707",)
    world.mini.clock.open.set()
    async with asyncio.timeout(5):
        while world.mini.recorded != world.mini.urls:
            await asyncio.sleep(0.001)
    world.desk.book.record()
    assert world.mini.recorded == ("http://10.0.0.77:7707",), "the older hello does not win"


async def test_a_standby_records_nothing_and_does_once_it_is_the_holder(world: World) -> None:
    world.meet(world.mini, world.lap, (OTHER,), (LAN,))
    await settle()
    assert world.lap.recorded == ()
    world.mini.authority._holder = world.mini.id
    world.mini.book.record()
    assert world.lap.recorded == (LAN,)


async def test_a_loopback_address_is_recorded_only_while_all_are_on_one_host(world: World) -> None:
    world.desk.urls = (LOOP,)
    world.desk.clock.open.set()
    world.meet(world.desk, world.mini, (LOOP,), (LOOP_TOO,))
    await asyncio.to_thread(lambda: None)
    await settle()
    assert world.mini.recorded == (), "lap may be elsewhere"
    world.meet(world.desk, world.lap, (LOOP,), ("http://127.0.0.1:7709",))
    async with asyncio.timeout(5):
        while not (world.mini.recorded == (LOOP_TOO,) and world.desk.recorded == (LOOP,)):
            world.desk.book.record()
            await asyncio.sleep(0.001)
    world.meet(world.desk, world.lap, (), ("http://192.168.7.7:7707",))
    world.desk.book.record()
    assert (world.mini.recorded, world.desk.recorded) == ((), ()), "lap moved to another host"


async def test_nothing_of_loopback_is_told_to_a_machine_on_another_host(world: World) -> None:
    world.meet(world.desk, world.mini, (LAN,), (OTHER,))
    world.mini.urls = (LOOP, "http://10.0.0.77:7707")
    world.mini.clock.open.set()
    async with asyncio.timeout(5):
        while world.mini.recorded == (OTHER,):
            await asyncio.sleep(0.001)
    assert world.desk.book._said[world.mini.id] == ("http://10.0.0.77:7707",)
